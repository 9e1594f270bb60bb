#!/usr/bin/env python3
"""Rows that planner expects beside rows that were there: fragments of ours, and operators of stock DataFusion, in one run.

    bench_estimates.py [--workloads tpch,ssb,clickbench] [--scale 0.1] [--details]

Ours: `system.fragments` after a first run over cold files; after a second one, by what the first counted; and on a server without feedback
after ANALYZE, first and again when the column cache knows dictionaries. A join is a fragment
that probes (rows that reach its sink), an aggregate one that groups (groups). Stock: statistics and counts of EXPLAIN ANALYZE under
`trireme.cpu_variant = datafusion`. Planning is what lowering, estimates, join order and placement take beside DataFusion's own planning
(the 113 join graphs': bench_joinorder). An error is the larger of expected/actual and actual/expected, both at least 1.
"""

import argparse
import contextlib
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import workloads  # noqa: E402
from figures import Figures  # noqa: E402
from trireme import Server  # noqa: E402
from workloads import counted, percentile  # noqa: E402

OURS = """SELECT text, sink_rows, expected_sink_rows, output_rows, expected_output_rows FROM system.fragments
WHERE run > {after} AND text NOT LIKE '%system%'"""

# Nothing is known of tables but what a pass is about.
NO_SKETCHES = ["--set", "statistics.sketch_on_use=false"]


def error(expected, actual):
    expected, actual = max(expected, 1.0), max(actual, 1.0)
    return max(expected / actual, actual / expected)


def rows_of(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchall()


@contextlib.contextmanager
def session(data, arguments=()):
    with workloads.linked(data) as folder, contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(folder, arguments))
        connection = stack.enter_context(contextlib.closing(dbapi.connect(server.uri, autocommit=True)))
        yield stack.enter_context(contextlib.closing(connection.cursor()))


def ours(cursor, queries):
    """Errors of joins and of aggregates, with what they are of."""
    joins, aggregates = [], []
    for label, sql in queries:
        after = rows_of(cursor, "SELECT coalesce(max(run), -1) FROM system.fragments")[0][0]
        rows_of(cursor, sql)
        for text, sink, expected_sink, output, expected_output in rows_of(cursor, OURS.format(after=after)):
            if " probe " in text and sink is not None:
                joins.append((error(expected_sink, sink), label, sink, expected_sink, text))
            if "aggregate by" in text and output is not None:
                aggregates.append((error(expected_output, output), label, output, expected_output, text))
    return joins, aggregates


def stock(cursor, queries):
    """The same of DataFusion's operators, as its own EXPLAIN ANALYZE has them."""
    joins, aggregates = [], []
    rows_of(cursor, "SET trireme.cpu_variant = 'datafusion'")
    rows_of(cursor, "SET datafusion.explain.show_statistics = true")
    for label, sql in queries:
        plan = rows_of(cursor, f"EXPLAIN ANALYZE {sql}")[0][1]
        for line in plan.splitlines():
            actual = re.search(r"metrics=\[output_rows=([\d.]+ ?[KMB]?)", line)
            expected = re.search(r"statistics=\[Rows=(?:Exact|Inexact)\((\d+)\)", line)
            operator = line.strip().split(":")[0]
            if not actual or not expected or "mode=Partial," in line:
                continue
            row = (error(float(expected[1]), counted(actual[1])), label, counted(actual[1]), float(expected[1]), line.strip())
            if operator.endswith("JoinExec"):
                joins.append(row)
            elif operator == "AggregateExec" and "gby=[]" not in line:
                aggregates.append(row)
    return joins, aggregates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="tpch,ssb,clickbench")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--rows", type=int, default=20_000, help="of ClickBench's table")
    parser.add_argument("--details", action="store_true", help="the worst ones")
    options = parser.parse_args()
    figures = Figures("estimates", vars(options))
    for name in options.workloads.split(","):
        queries = workloads.queries(name)
        data = workloads.data(name, workloads.DATA, options.scale, options.rows)
        with session(data, NO_SKETCHES) as cursor:
            passes = {"first_run": ours(cursor, queries), "second_run": ours(cursor, queries)}
            workloads.planning_figures(figures, f"{name}_second_run", [workloads.planning_ms(cursor, sql) for _, sql in queries])
            passes["datafusion"] = stock(cursor, queries)
        with session(data, [*NO_SKETCHES, "--set", "statistics.feedback_max=0"]) as cursor:
            for file in sorted(data.glob("*.parquet")):
                rows_of(cursor, f"ANALYZE TABLE {file.stem}")
            first_sight = [workloads.planning_ms(cursor, sql, 1) for _, sql in queries]
            workloads.planning_figures(figures, f"{name}_analyzed_first_sight", first_sight)
            passes |= {"analyzed_first_run": ours(cursor, queries), "analyzed": ours(cursor, queries)}
            workloads.planning_figures(figures, f"{name}_analyzed", [workloads.planning_ms(cursor, sql) for _, sql in queries])
        for label, (joins, aggregates) in passes.items():
            judged = label in ("second_run", "analyzed")
            for what, found, p90 in (("joins", joins, 20), ("aggregates", aggregates, 10)):
                if not found:
                    continue
                errors = [row[0] for row in found]
                figures.add(f"{name}_{what}_{label}_median", percentile(errors, 0.5), "x", at_most=2 if judged else None)
                figures.add(f"{name}_{what}_{label}_p90", percentile(errors, 0.9), "x", at_most=p90 if judged else None)
                if options.details:
                    for row in sorted(found, reverse=True)[:5]:
                        print("   %.1f x %s: %d rows, %d expected: %s" % (*row[:4], row[4][:160]))
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
