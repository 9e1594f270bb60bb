#!/usr/bin/env python3
"""The 22 TPC-H queries against DuckDB on the same Parquet files, value by value.

Each query is sent twice: over ADBC, and through `trisql --format csv`. Numbers are compared at 1e-9 relative, everything
else exactly. Rows must come in the order of the query's sort key; rows of an equal key may come in any order, and where a
LIMIT cuts through rows of an equal key, either choice is right. DIFFERENCES.md lists where types differ, and why.

    compare.py [--scale 0.1] [--data DIR] [--queries 1,5,22] [--only adbc|trisql]
"""

import argparse
import csv
import datetime
import decimal
import io
import math
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import duckdb  # noqa: E402
from trireme import Server, clean_environment, client_binary, generate_tpch  # noqa: E402

RELATIVE = 1e-9
TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]

# Places (from 0) of the columns that each query sorts by; none means that it has one row.
SORT = {
    1: [0, 1], 2: [0, 2, 1, 3], 3: [1, 2], 4: [0], 5: [1], 6: [], 7: [0, 1, 2], 8: [0], 9: [0, 1], 10: [2], 11: [1],
    12: [0], 13: [1, 0], 14: [], 15: [0], 16: [3, 0, 1, 2], 17: [], 18: [4, 3], 19: [], 20: [0], 21: [1, 0], 22: [0],
}  # fmt: skip
LIMIT = {2: 100, 3: 10, 10: 20, 18: 100, 21: 100}
# Places where a decimal of few digits stands for DuckDB's double (DIFFERENCES.md): equal to within its last digit.
ROUNDED = {1: [6, 7, 8], 8: [1]}
ROUNDED_DIGITS_MIN = 6


def sql_of(number):
    return (HERE / f"q{number:02}.sql").read_text()


def is_number(value):
    return isinstance(value, (int, float, decimal.Decimal)) and not isinstance(value, bool)


def same(wanted, found):
    if is_number(wanted) and is_number(found):
        return math.isclose(float(wanted), float(found), rel_tol=RELATIVE, abs_tol=1e-12)
    return wanted == found


def same_rounded(wanted, found):
    """`found` has fewer digits: right to within one of its last, and it must have enough of them."""
    digits = -found.as_tuple().exponent if isinstance(found, decimal.Decimal) else 0
    if digits < ROUNDED_DIGITS_MIN:
        return same(wanted, found)
    return abs(decimal.Decimal(wanted) - found) <= decimal.Decimal(10) ** -digits


def same_row(number, wanted, found):
    if len(wanted) != len(found):
        return False
    rounded = ROUNDED.get(number, [])
    pairs = enumerate(zip(wanted, found))
    return all(same_rounded(w, f) if place in rounded else same(w, f) for place, (w, f) in pairs)


def same_key(sort, wanted, found):
    return all(same(wanted[place], found[place]) for place in sort)


def groups(rows, sort):
    """Runs of rows with an equal sort key."""
    runs = []
    for row in rows:
        if runs and same_key(sort, runs[-1][0], row):
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def difference(number, wanted, found):
    """Why `found` is not the answer; None when it is."""
    if len(wanted) != len(found):
        return f"{len(found)} rows, not {len(wanted)}"
    sort = SORT[number]
    cut = len(wanted) == LIMIT.get(number)
    wanted_groups, found_groups = groups(wanted, sort), groups(found, sort)
    if len(wanted_groups) != len(found_groups):
        return f"{len(found_groups)} different sort keys, not {len(wanted_groups)}"
    for index, (want, find) in enumerate(zip(wanted_groups, found_groups)):
        if len(want) != len(find) or not same_key(sort, want[0], find[0]):
            return f"sort key {index}: {find[0]}, not {want[0]}"
        if cut and index == len(wanted_groups) - 1:
            continue  # LIMIT cut through these: which of them came is free
        rest = list(find)
        for row in want:
            match = next((other for other in rest if same_row(number, row, other)), None)
            if match is None:
                return f"no row {row}; instead {rest[0]}"
            rest.remove(match)
    return None


def from_text(text, like):
    """A CSV field, of the kind that DuckDB's value in the same place has."""
    if like is None or isinstance(like, str):
        return text
    if isinstance(like, datetime.date):
        return datetime.date.fromisoformat(text[:10])
    return decimal.Decimal(text)


def adbc_rows(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def trisql_rows(server, number, wanted):
    command = [client_binary(), "--no-rc", server.uri, "--format", "csv", "-f", str(HERE / f"q{number:02}.sql")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=clean_environment())
    if done.returncode != 0:
        raise RuntimeError(f"trisql ended with {done.returncode}: {done.stderr.strip()[:500]}")
    lines = list(csv.reader(io.StringIO(done.stdout)))[1:]
    # The types of a column come from DuckDB's first row: CSV has none.
    like = wanted[0] if wanted else []
    return [tuple(from_text(text, kind) for text, kind in zip(line, like)) for line in lines]


def reference(data):
    connection = duckdb.connect()
    for table in TABLES:
        path = data / f"{table}.parquet"
        place = f"{path}" if path.exists() else f"{data / table}/*.parquet"
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{place}')")
    return connection


def run(data, queries, only):
    duck = reference(data)
    passed, failed = 0, 0
    with Server(data) as server, dbapi.connect(server.uri, autocommit=True) as connection:
        for number in queries:
            sql = sql_of(number)
            wanted = [tuple(row) for row in duck.execute(sql).fetchall()]
            ways = {"adbc": lambda: adbc_rows(connection, sql), "trisql": lambda: trisql_rows(server, number, wanted)}
            for way, ask in ways.items():
                if only and way != only:
                    continue
                begin = time.perf_counter()
                try:
                    problem = difference(number, wanted, [tuple(row) for row in ask()])
                except Exception as failure:  # noqa: BLE001 - a failing query is a result of this run
                    problem = f"{type(failure).__name__}: {failure}"
                took_ms = (time.perf_counter() - begin) * 1000
                verdict = "equal" if problem is None else f"DIFFERS: {problem}"
                print(f"q{number:02} {way:<6} {len(wanted):>6} rows {took_ms:>8.0f} ms  {verdict}", flush=True)
                passed, failed = (passed + 1, failed) if problem is None else (passed, failed + 1)
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--data", type=pathlib.Path, help="folder with the tables; made there when absent")
    parser.add_argument("--queries", type=lambda text: [int(n) for n in text.split(",")], default=list(range(1, 23)))
    parser.add_argument("--only", choices=["adbc", "trisql"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = generate_tpch(arguments.scale, arguments.data or pathlib.Path(scratch) / "tpch")
        passed, failed = run(data, arguments.queries, arguments.only)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
