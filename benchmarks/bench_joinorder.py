#!/usr/bin/env python3
"""The 113 join graphs of the Join Order Benchmark over skewed, correlated tables: our order of joins, DataFusion's own, DuckDB.

    bench_joinorder.py [--runs 2] [--families 1,6,17] [--details]

One server per way. Ours: `first`, as a server comes: tables that are used are sketched in the background, and no run has taught anything;
`footers`, without sketches; `feedback`, what runs taught instead; `analyzed`, after ANALYZE. DataFusion's order: the same fused pipelines under
`trireme.reorder_joins = false`. Times are over ADBC, the best of `--runs` after some to warm up the caches;
the first pass of ours has its runs with feedback off, so that it stays a first one. All of ours are measured
twice: planned anew each time, as DuckDB's are, and with plans kept (`_kept`), as servers do. Planning is what lowering, estimates, join order and placement take beside DataFusion's own. A query that takes longer than `--limit` seconds counts as that.
Every way's rows are compared.
"""

import argparse
import contextlib
import math
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import job_queries  # noqa: E402
import workloads  # noqa: E402
from figures import Figures  # noqa: E402
from trireme import Server  # noqa: E402


# A plan is kept when its shape is seen for the second time, and used from then on.
KEPT_AFTER = 3


def timed(run, sql, runs, before=1):
    """Rows and the best time in ms, after some runs that don't count."""
    best = math.inf
    for _ in range(before):
        rows = run(sql)
    for _ in range(runs):
        begin = time.perf_counter()
        rows = run(sql)
        best = min(best, (time.perf_counter() - begin) * 1000)
    return rows, best


def passes(data, queries, options, arguments=(), prepare=(), rounds=1):
    """label → (rows, ms) of the last round: planned anew, and with plans kept; and the planning times of the queries in ms, at first
    sight and later."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(stack.enter_context(workloads.linked(data)), arguments))
        connection = stack.enter_context(contextlib.closing(dbapi.connect(server.uri, autocommit=True)))
        cursor = stack.enter_context(contextlib.closing(connection.cursor()))

        def run(sql):
            cursor.execute(sql)
            return cursor.fetchall()

        for sql in prepare:
            run(sql)
        run(f"SET trireme.statement_timeout_ms = {int(options.limit * 1000)}")
        run("SET trireme.plan_cache = false")
        first_sight = [workloads.planning_ms(cursor, sql, 1) for _, sql in queries]
        found = []
        for round_ in range(rounds + 1):
            run(f"SET trireme.plan_cache = {str(round_ == rounds).lower()}")
            took = {}
            for label, sql in queries:
                try:
                    took[label] = timed(run, sql, options.runs, KEPT_AFTER if round_ == rounds else 1)
                except dbapi.Error as error:
                    if "TIMEOUT" not in str(error).upper() and "timeout" not in str(error):
                        raise
                    took[label] = (None, options.limit * 1000)
            found.append(took)
        run("SET trireme.plan_cache = false")
        quick = [sql for label, sql in queries if found[-1][label][0] is not None]
        return found[-2], found[-1], (first_sight, [workloads.planning_ms(cursor, sql) for sql in quick])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=10.0)
    parser.add_argument("--families", default="", help="only these")
    parser.add_argument("--details", action="store_true", help="every query")
    options = parser.parse_args()
    wanted = {int(family) for family in options.families.split(",") if family}
    queries = [row for row in job_queries.queries() if not wanted or int(row[0][:2]) in wanted]
    data = workloads.data("job", workloads.DATA, 1, 0)
    analyze = [f"ANALYZE TABLE {file.stem}" for file in sorted(data.glob("*.parquet"))]
    no_feedback, no_sketches = ["--set", "statistics.feedback_max=0"], ["--set", "statistics.sketch_on_use=false"]
    ways, planning = {}, {}

    def measure(way, *arguments, **others):
        ways[way], ways[f"{way}_kept"], planning[way] = passes(data, queries, options, *arguments, **others)

    measure("first", no_feedback)
    measure("footers", [*no_feedback, *no_sketches])
    measure("datafusion_order", [*no_feedback, *no_sketches], ["SET trireme.reorder_joins = false"])
    measure("feedback", no_sketches, rounds=2)
    measure("analyzed", [*no_feedback, *no_sketches], analyze)
    connection = workloads.duckdb_over(data)
    rival = {label: timed(lambda sql: connection.execute(sql).fetchall(), sql, options.runs) for label, sql in queries}
    ways["duckdb"] = rival
    wrong = 0
    for label, _ in queries:
        for way, took in ways.items():
            rows = took[label][0]
            if rows is not None and [tuple(row) for row in rows] != rival[label][0]:
                wrong += 1
                print(f"   {label} {way}: {rows} instead of {rival[label][0]}")
        if options.details:
            print(f"   {label} " + " ".join(f"{way}={took[label][1]:.0f}" for way, took in ways.items()))
    figures = Figures("joinorder", vars(options))
    figures.add("different_results", wrong, "queries", at_most=0)
    totals = {way: sum(ms for _, ms in took.values()) for way, took in ways.items()}
    for way, total in totals.items():
        figures.add(f"{way}_total", total, "ms")
    for way in ("first", "footers", "feedback", "analyzed"):
        for kept in ("", "_kept"):
            ours, own = ways[way + kept], f"datafusion_order{kept}"
            for other, name in ((own, "datafusion_order"), ("duckdb", "duckdb")):
                figures.add(f"{way}{kept}_against_{name}", totals[way + kept] / totals[other], "x", at_most=1)
                shares = [ours[label][1] / ways[other][label][1] for label, _ in queries]
                figures.add(f"{way}{kept}_against_{name}_geomean", math.exp(sum(map(math.log, shares)) / len(shares)), "x", at_most=1)
            worst = max(ours[label][1] / ways[own][label][1] for label, _ in queries)
            figures.add(f"{way}{kept}_worst_against_datafusion_order", worst, "x")
        workloads.planning_figures(figures, f"{way}_first_sight", planning[way][0])
        workloads.planning_figures(figures, way, planning[way][1])
    figures.write()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
