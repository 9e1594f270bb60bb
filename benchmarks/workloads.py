"""The workloads that fused pipelines are judged by: their data, made once per folder, and their queries.

TPC-H and TPC-DS come from `trireme generate`; SSB's star schema from TPC-H's tables by SQL; ClickBench's `hits` from a seeded
generator in SQL, and so do the 21 tables of the Join Order Benchmark's graphs. All but the first run in DuckDB, which writes Parquet.
"""

import contextlib
import os
import pathlib
import re
import sys
import tempfile

import duckdb

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from trireme import generate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
# Where data is kept between runs.
DATA = pathlib.Path(os.environ.get("TRIREME_BENCH_DATA", pathlib.Path.home() / ".cache" / "trireme" / "bench"))
TPCH_TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]


def statements(path):
    """The statements of a file, without comments, one per semicolon at a line's end."""
    text = re.sub(r"^--.*\n", "", path.read_text(), flags=re.M)
    return [part.strip() for part in re.split(r";\s*\n", text + "\n") if part.strip()]


def queries(name):
    """(label, SQL) of a workload."""
    if name == "clickbench":
        found = statements(TESTS / "clickbench" / "queries.sql")
        return [(f"c{number:02}", sql) for number, sql in enumerate(found)]
    return [(path.stem, statements(path)[0]) for path in sorted((TESTS / name).glob("q*.sql"))]


def make_ssb(tpch, out):
    out.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    for table in TPCH_TABLES:
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{tpch / table}.parquet')")
    for statement in statements(TESTS / "ssb" / "schema.sql"):
        connection.execute(statement.replace("{out}", str(out)))


def make_clickbench(out, rows, seed=42):
    out.mkdir(parents=True, exist_ok=True)
    for statement in statements(TESTS / "clickbench" / "schema.sql"):
        duckdb.connect().execute(statement.format(out=out, rows=rows, seed=seed))


def make_job(out, seed=42):
    out.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    for statement in statements(TESTS / "job" / "schema.sql"):
        connection.execute(statement.replace("{out}", str(out)).replace("{seed}", str(seed)))


@contextlib.contextmanager
def linked(data):
    """A folder of its own with the same files, so that what a server keeps beside them (ANALYZE) does not outlive it."""
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        for file in data.glob("*.parquet"):
            os.link(file, pathlib.Path(folder) / file.name)
        yield pathlib.Path(folder)


def planning_ms(cursor, sql, times=3):
    """What planning a query's fragments takes beside DataFusion's own planning: lowering, estimates, the order of joins, and where
    they run. As the server counts it, by EXPLAIN ANALYZE, the least of some times; 0 where nothing is fused."""

    def once():
        cursor.execute(f"EXPLAIN ANALYZE {sql}")
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
        return sum(counted(value) for value in re.findall(r"(?:planning|placing)_us=([\d.]+ ?[KMB]?)", plan)) / 1000

    return min(once() for _ in range(times))


def counted(text):
    """A count as DataFusion shows it."""
    number, suffix = re.fullmatch(r"([\d.]+) ?([KMB]?)", text.strip()).groups()
    return float(number) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}[suffix]


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def planning_figures(figures, name, took):
    """Figures of [`planning_ms`] of many queries."""
    figures.add(f"{name}_planning_p50", percentile(took, 0.5), "ms", at_most=1)
    figures.add(f"{name}_planning_p99", percentile(took, 0.99), "ms", at_most=5)


def duckdb_over(data):
    """DuckDB with a view per Parquet file of a folder; NULL is larger than everything, as here."""
    connection = duckdb.connect()
    connection.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'")
    for file in sorted(data.glob("*.parquet")):
        connection.execute(f"CREATE VIEW {file.stem} AS SELECT * FROM read_parquet('{file}')")
    return connection


def data(name, folder, scale, rows):
    """The folder of a workload's tables, made if it isn't there."""
    out = folder / (f"clickbench-{rows}" if name == "clickbench" else f"{name}-sf{scale:g}")
    whole = out / ".whole"
    if not whole.exists():
        if name in ("tpch", "tpcds"):
            generate(name, scale, out)
        elif name == "ssb":
            make_ssb(data("tpch", folder, scale, rows), out)
        elif name == "clickbench":
            make_clickbench(out, rows)
        elif name == "job":
            make_job(out)
        else:
            raise ValueError(f"no workload {name}")
        whole.touch()
    return out
