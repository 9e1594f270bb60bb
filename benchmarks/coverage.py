#!/usr/bin/env python3
"""How much of each workload's queries is fused, and whether the results are DuckDB's.

    coverage.py [--only tpch,ssb,clickbench,tpcds] [--data DIR] [--scale 0.1] [--rows 1000000] [--write]

Data is made in the folder where it is missing. Each query is explained with `trireme.cpu_variant = fused`; its results on `fused` and on `datafusion`
are compared with DuckDB's: numbers at 1e-9 relative, rows as sets. Where the rows differ and a LIMIT may cut through equal keys, the whole results
without the LIMIT are compared. With --write the table goes to benchmarks/COVERAGE.md.
"""

import argparse
import collections
import datetime
import decimal
import math
import pathlib
import re
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import workloads  # noqa: E402
from trireme import Server  # noqa: E402


# Where quotients of decimals, which have few digits here and are doubles in DuckDB, are multiplied or summed: the error that comes
# of it (tests/tpcds/README.md).
QUOTIENTS = {("tpcds", "q58"): 1e-4, ("tpcds", "q61"): 1e-6, ("tpcds", "q66"): 1e-5}
# Results without their LIMIT are compared row by row up to so many rows, above only their number.
WHOLE_ROWS_MAX = 200_000


def normal(value):
    if value is None or isinstance(value, (str, bytes, bool)):
        return value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()[:19]
    return float(value)


def last_digits(wanted, found):
    """For each column, one of the last digit where a decimal of few digits stands for DuckDB's double (tests/tpch/DIFFERENCES.md),
    else nothing."""
    if not wanted or not found:
        return []
    slack = [0.0] * len(found[0])
    for place, column in enumerate(zip(*found)):
        digits = {value.as_tuple().exponent for value in column if isinstance(value, decimal.Decimal)}
        if digits and any(isinstance(row[place], float) for row in wanted):
            slack[place] = 10.0 ** max(digits)
    return slack


def same(one, other, slack=0.0):
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) and math.isnan(other):
            return True
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=max(1e-9, slack))
    return one == other


def key(row):
    return tuple((value is None, f"{value:.6g}" if isinstance(value, float) else str(value)) for value in row)


def differing(wanted, found, least=0.0):
    """How many rows of two results of the same length differ, as sets; `least` is what decimals for doubles may differ by."""
    slack = [digit and max(digit, least) for digit in last_digits(wanted, found)]
    wanted = sorted(([normal(v) for v in row] for row in wanted), key=key)
    found = sorted(([normal(v) for v in row] for row in found), key=key)
    return sum(not all(map(same, a, b, slack)) for a, b in zip(wanted, found))


def compare(sql, ours, rival, least=0.0):
    """What is to be said of a query's results, as two functions give them."""
    wanted, found = rival(sql), ours(sql)
    if len(wanted) != len(found):
        return f"{len(found)} rows, DuckDB {len(wanted)}"
    wrong = differing(wanted, found, least)
    if wrong == 0:
        return "equal"
    # A LIMIT is the end of all our texts that have one.
    whole = re.sub(r"\blimit\s+\d+(\s+offset\s+\d+)?\s*$", "", sql, flags=re.I)
    if whole != sql:
        wanted, found = rival(whole), ours(whole)
        if len(wanted) == len(found) and (len(wanted) > WHOLE_ROWS_MAX or differing(wanted, found, least) == 0):
            return f"equal but for ties ({wrong} rows)"
    return f"{wrong} rows differ"


def explained(plan):
    """Fragments, and the reasons of what isn't fused."""
    fragments = sum(int(count) for count in re.findall(r"FragmentExec: \S+, fragments=(\d+)", plan))
    reasons = re.findall(r"UnfusedExec: (.*)", plan)
    return fragments, "; ".join(reasons)[:300]


def rows_of(cursor, sql):
    cursor.execute(sql)
    table = cursor.fetch_arrow_table()
    # Names may stand twice.
    table = table.rename_columns([str(place) for place in range(table.num_columns)])
    return [tuple(row.values()) for row in table.to_pylist()]


def run(name, data, rows):
    rival = workloads.duckdb_over(data)
    with Server(data) as server, dbapi.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True) as connection:
        cursor = connection.cursor()

        def on(variant):
            cursor.execute(f"SET trireme.cpu_variant = '{variant}'")

        def ours(sql):
            return rows_of(cursor, sql)

        def theirs(sql):
            return rival.execute(sql).fetchall()

        for label, sql in workloads.queries(name):
            fragments, reasons, verdict, took_ms, count = 0, "", "", 0.0, 0
            least = QUOTIENTS.get((name, label), 0.0)
            try:
                on("fused")
                cursor.execute("EXPLAIN " + sql)
                plan = "\n".join(row[1] for row in cursor.fetchall() if row[0] == "physical_plan")
                fragments, reasons = explained(plan)
                begin = time.perf_counter()
                count = len(ours(sql))
                took_ms = (time.perf_counter() - begin) * 1000
                verdict = compare(sql, ours, theirs, least)
                on("datafusion")
                other = compare(sql, ours, theirs, least)
                if not other.startswith("equal"):
                    verdict = f"datafusion: {other}"
            except Exception as error:  # noqa: BLE001
                verdict = "failed: " + str(error).splitlines()[0][:160]
            print(f"{name:<10} {label:<6} {fragments:>3} fragments {took_ms:9.1f} ms  {count:>6} rows  {verdict}  {reasons}", flush=True)
            rows.append((name, label, fragments, count, verdict, reasons))
        time.sleep(1.5)  # Counters are taken over once a second.
        page = urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=10).read().decode()
        fallbacks = re.search(r"^trireme_fragment_fallbacks_total (\d+)", page, re.M)
        print(f"{name}: {fallbacks.group(1) if fallbacks else '?'} fallbacks")


def write(rows):
    lines = [
        "# What is fused",
        "",
        "Made by `make coverage`. One line per query: fragments on the processor's fused variant, rows of the result, whether it is",
        "DuckDB's, and why the rest stays with DataFusion's operators.",
        "",
        "| workload | queries | wholly fused | results equal |",
        "| --- | --- | --- | --- |",
    ]
    totals = collections.defaultdict(lambda: [0, 0, 0])
    for name, _, fragments, _, verdict, reasons in rows:
        totals[name][0] += 1
        totals[name][1] += fragments > 0 and not reasons
        totals[name][2] += verdict.startswith("equal")
    lines += [f"| {name} | {a} | {b} | {c} |" for name, (a, b, c) in totals.items()]
    lines += ["", "| workload | query | fragments | rows | result | not fused |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {n} | {q} | {f} | {c} | {v} | {r.replace('|', '/')} |" for n, q, f, c, v, r in rows]
    (HERE / "COVERAGE.md").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="tpch,ssb,clickbench,tpcds")
    parser.add_argument("--data", type=pathlib.Path, default=workloads.DATA)
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only.split(","):
        run(name, workloads.data(name, arguments.data, arguments.scale, arguments.rows), rows)
    if arguments.write:
        write(rows)
    sys.exit(any(not row[4].startswith("equal") for row in rows))


if __name__ == "__main__":
    main()
