#!/usr/bin/env python3
"""How much of each workload's queries is fused, and whether the results are DuckDB's.

    coverage.py [--only tpch,ssb,clickbench] [--data DIR] [--scale 0.1] [--rows 1000000] [--write]

Data is made in the folder where it is missing. Each query is explained and run with `trireme.cpu_variant = fused` and compared with DuckDB: numbers at 1e-9 relative, rows as
sets (where a LIMIT cuts through equal keys, only the count). With --write the table goes to benchmarks/COVERAGE.md.
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


def normal(value):
    if value is None or isinstance(value, (str, bytes, bool)):
        return value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()[:19]
    return float(value)


def last_digit(wanted, found):
    """One of the last digit where a decimal of few digits stands for DuckDB's double (tests/tpch/DIFFERENCES.md), else none."""
    if isinstance(found, decimal.Decimal) and isinstance(wanted, float):
        return 10.0 ** found.as_tuple().exponent
    return 0.0


def same(one, other, slack=0.0):
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) and math.isnan(other):
            return True
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=max(1e-9, slack))
    return one == other


def key(row):
    return tuple((value is None, f"{value:.6g}" if isinstance(value, float) else str(value)) for value in row)


def compare(sql, wanted, found):
    if len(wanted) != len(found):
        return f"{len(found)} rows, DuckDB {len(wanted)}"
    slack = [last_digit(*pair) for pair in zip(wanted[0], found[0])] if wanted else []
    wanted = sorted(([normal(v) for v in row] for row in wanted), key=key)
    found = sorted(([normal(v) for v in row] for row in found), key=key)
    wrong = sum(not all(map(same, a, b, slack)) for a, b in zip(wanted, found))
    if wrong == 0:
        return "equal"
    if re.search(r"\blimit\b", sql, re.I):
        return f"equal but for ties ({wrong} rows)" if wrong < len(wanted) or wrong <= 10 else f"{wrong} rows differ"
    return f"{wrong} rows differ"


def explained(plan):
    """Fragments, and the reasons of what isn't fused."""
    fragments = sum(int(count) for count in re.findall(r"FragmentExec: \S+, fragments=(\d+)", plan))
    reasons = re.findall(r"UnfusedExec: (.*)", plan)
    return fragments, "; ".join(reasons)[:300]


def run(name, data, rows):
    rival = workloads.duckdb_over(data)
    with Server(data) as server, dbapi.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute("SET trireme.cpu_variant = 'fused'")
        for label, sql in workloads.queries(name):
            fragments, reasons, verdict, took_ms = 0, "", "", 0.0
            try:
                cursor.execute("EXPLAIN " + sql)
                plan = "\n".join(row[1] for row in cursor.fetchall() if row[0] == "physical_plan")
                fragments, reasons = explained(plan)
                begin = time.perf_counter()
                cursor.execute(sql)
                found = cursor.fetch_arrow_table()
                took_ms = (time.perf_counter() - begin) * 1000
                found = [tuple(row.values()) for row in found.rename_columns([str(place) for place in range(found.num_columns)]).to_pylist()]
                verdict = compare(sql, rival.execute(sql).fetchall(), found)
            except Exception as error:  # noqa: BLE001
                verdict = "failed: " + str(error).splitlines()[0][:160]
            print(f"{name:<10} {label:<6} {fragments:>3} fragments {took_ms:9.1f} ms  {verdict}  {reasons}", flush=True)
            rows.append((name, label, fragments, verdict, reasons))
        time.sleep(1.5)  # Counters are taken over once a second.
        page = urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=10).read().decode()
        fallbacks = re.search(r"^trireme_fragment_fallbacks_total (\d+)", page, re.M)
        print(f"{name}: {fallbacks.group(1) if fallbacks else '?'} fallbacks")


def write(rows):
    lines = [
        "# What is fused",
        "",
        "Made by `make coverage`. One line per query: fragments on the processor's fused variant, whether the result is",
        "DuckDB's, and why the rest stays with DataFusion's operators.",
        "",
        "| workload | queries | wholly fused | results equal |",
        "| --- | --- | --- | --- |",
    ]
    totals = collections.defaultdict(lambda: [0, 0, 0])
    for name, _, fragments, verdict, reasons in rows:
        totals[name][0] += 1
        totals[name][1] += fragments > 0 and not reasons
        totals[name][2] += verdict.startswith("equal")
    lines += [f"| {name} | {a} | {b} | {c} |" for name, (a, b, c) in totals.items()]
    lines += ["", "| workload | query | fragments | result | not fused |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {n} | {q} | {f} | {v} | {r.replace('|', '/')} |" for n, q, f, v, r in rows]
    (HERE / "COVERAGE.md").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="tpch,ssb,clickbench")
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
    sys.exit(any(not row[3].startswith("equal") for row in rows))


if __name__ == "__main__":
    main()
