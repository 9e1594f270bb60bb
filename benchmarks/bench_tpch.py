#!/usr/bin/env python3
"""TPC-H over Flight SQL with ADBC: fused pipelines, DataFusion's operators, and DuckDB on the same files and on its own
tables, by turns, in one run, on all cores, with other literals at every repetition.

    bench_tpch.py [--scale 1] [--data DIR] [--repetitions 5] [--queries 1,6] [--engines fused,datafusion,duckdb,duckdb-parquet,hyper]
                  [--cold 0|1] [--streams 0|8] [--preparation 0|1]

A time is what a client sees: from the statement's text to the last row. Hot: each engine ran each query before, and our
columns are resident; no result, aggregate or build table is kept between runs. Cold: a fresh process per query. Preparation: what
lowering and preparing a fragment takes, over tables of a few rows.
"""

import argparse
import contextlib
import math
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import duckdb  # noqa: E402
from figures import Figures  # noqa: E402
from tpch_literals import with_literals  # noqa: E402
import workloads  # noqa: E402
from trireme import Server  # noqa: E402

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]
PAIRS_MIN = 15


class Trireme:
    """One session of a running server."""

    def __init__(self, server, variant):
        self.connection = dbapi.connect(f"grpc://127.0.0.1:{server.port}", autocommit=True)
        self.cursor = self.connection.cursor()
        self.cursor.execute(f"SET trireme.cpu_variant = '{variant}'")
        self.cursor.fetchall()

    def run(self, sql):
        self.cursor.execute(sql)
        return self.cursor.fetch_arrow_table()

    def close(self):
        self.cursor.close()
        self.connection.close()


class DuckDb:
    """DuckDB in this process: no wire to cross, which is in its favour."""

    def __init__(self, data, native, cores, database=None):
        self.connection = duckdb.connect(database or ":memory:", config={"threads": cores})
        if database is None:
            for table in TABLES:
                kind = "TABLE" if native else "VIEW"
                source = data / f"{table}.parquet"
                pattern = str(source if source.is_file() else data / table / "*.parquet")
                self.connection.execute(f"CREATE {kind} {table} AS SELECT * FROM read_parquet('{pattern}')")

    def run(self, sql):
        return self.connection.execute(sql).to_arrow_table()

    def close(self):
        self.connection.close()


class Hyper:
    """Tableau's Hyper, where its package can be installed."""

    def __init__(self, data):
        import tableauhyperapi as hyper

        telemetry = hyper.Telemetry.DO_NOT_SEND_USAGE_DATA_TO_TABLEAU
        self.process = hyper.HyperProcess(telemetry, parameters={"log_config": ""})
        self.connection = hyper.Connection(self.process.endpoint)
        for table in TABLES:
            source = data / f"{table}.parquet"
            files = [source] if source.is_file() else sorted((data / table).glob("*.parquet"))
            names = ", ".join(f"'{name}'" for name in files)
            text = f"CREATE TEMPORARY TABLE {table} AS (SELECT * FROM external(ARRAY[{names}], FORMAT => 'parquet'))"
            self.connection.execute_command(text)

    def run(self, sql):
        with self.connection.execute_query(sql) as result:
            return list(result)

    def close(self):
        self.connection.close()
        self.process.close()


def timed(engine, sql):
    begin = time.perf_counter()
    engine.run(sql)
    return time.perf_counter() - begin


def geomean(values):
    values = [value for value in values if value > 0]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def lower_bound(ratios, rounds=2000, seed=1):
    """Lower 95 % bound of the median ratio, by bootstrap."""
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(ratios, k=len(ratios))) for _ in range(rounds))
    return medians[int(0.05 * rounds)]


def hot(engines, queries, repetitions, scale):
    """query → engine → seconds of each repetition; engines take turns in an order that changes."""
    times = {number: {name: [] for name in engines} for number in queries}
    for number in queries:
        for name, engine in engines.items():
            for warm in range(2):
                engine.run(with_literals(number, 1000 + warm, scale))
        for repetition in range(repetitions):
            order = list(engines.items())
            random.Random(repetition).shuffle(order)
            for name, engine in order:
                times[number][name].append(timed(engine, with_literals(number, repetition, scale)))
        line = "  ".join(f"{name} {median(times[number][name]) * 1000:8.1f}" for name in engines)
        print(f"# Q{number:<2} ms: {line}", flush=True)
    return times


def cold(data, queries, scale, cores, repetitions=3):
    """query → engine → seconds of each first run in a fresh process; the system's page cache is warm for all."""
    times = {number: {"fused": [], "datafusion": [], "duckdb-parquet": []} for number in queries}
    for number in queries:
        for repetition in range(repetitions):
            sql = with_literals(number, repetition, scale)
            for variant in ("fused", "datafusion"):
                with Server(data) as server, contextlib.closing(Trireme(server, variant)) as engine:
                    times[number][variant].append(timed(engine, sql))
            with contextlib.closing(DuckDb(data, False, cores)) as engine:
                times[number]["duckdb-parquet"].append(timed(engine, sql))
        line = "  ".join(f"{name} {median(values) * 1000:8.1f}" for name, values in times[number].items())
        print(f"# Q{number:<2} cold ms: {line}", flush=True)
    return times


def throughput(make, streams, queries, scale, rounds=1):
    """Queries per second of so many clients, each running all queries in an order of its own."""
    failures = []

    def client(index):
        with contextlib.closing(make()) as engine:
            for turn in range(rounds):
                order = list(queries)
                random.Random(index * 100 + turn).shuffle(order)
                for number in order:
                    try:
                        engine.run(with_literals(number, index * 10 + turn, scale))
                    except Exception as error:  # noqa: BLE001
                        failures.append(f"Q{number}: {error}")

    threads = [threading.Thread(target=client, args=(index,)) for index in range(streams)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} failed, the first: {failures[0]}")
    return streams * rounds * len(queries) / (time.perf_counter() - begin)


def report_hot(figures, times, engines):
    rivals = [name for name in ("duckdb", "hyper") if name in engines]
    for number, by_engine in times.items():
        ms = {name: median(values) * 1000 for name, values in by_engine.items()}
        for name, value in ms.items():
            figures.add(f"q{number:02}_{name}_ms", round(value, 2), "ms")
        if "fused" in ms and rivals:
            best = min(ms[name] for name in rivals)
            figures.add(f"q{number:02}_fused_to_best_rival", round(ms["fused"] / best, 3), "×", at_most=1.0)
        if "fused" in ms and "datafusion" in ms:
            pairs = [f / d for f, d in zip(by_engine["fused"], by_engine["datafusion"])]
            figures.add(f"q{number:02}_fused_to_datafusion_low95", round(lower_bound(pairs), 3), "×", at_most=1.05)
    for rival, target in (("duckdb", 0.25), ("duckdb-parquet", None), ("datafusion", None), ("hyper", None)):
        if rival in engines and "fused" in engines:
            ratios = [median(t["fused"]) / median(t[rival]) for t in times.values()]
            figures.add(f"geomean_fused_to_{rival}", round(geomean(ratios), 3), "×", at_most=target)


def report_cold(figures, times):
    ratios = []
    for number, by_engine in times.items():
        ms = {name: median(values) * 1000 for name, values in by_engine.items()}
        for name, value in ms.items():
            figures.add(f"q{number:02}_cold_{name}_ms", round(value, 1), "ms")
        ratios.append(ms["fused"] / ms["duckdb-parquet"])
        pairs = [f / d for f, d in zip(by_engine["fused"], by_engine["datafusion"])]
        figures.add(f"q{number:02}_cold_fused_to_datafusion_low95", round(lower_bound(pairs), 3), "×", at_most=1.05)
    figures.add("cold_geomean_fused_to_duckdb-parquet", round(geomean(ratios), 3), "×", at_most=1.0)


# Bytes that each row of lineitem needs in narrow columns, by query.
NARROW_BYTES = {1: 1 + 1 + 2 + 4 + 1 + 1 + 2, 6: 2 + 4 + 1 + 2}
LINEITEM_ROWS = 6_001_215


def memory_bandwidth(cores):
    """Bytes per second that all cores together read from memory, by summing large arrays."""
    import numpy

    arrays = [numpy.ones(32 << 20, dtype=numpy.int64) for _ in range(cores)]

    def read(array):
        for _ in range(3):
            array.max()

    best = 0.0
    for _ in range(3):
        threads = [threading.Thread(target=read, args=(array,)) for array in arrays]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, 3 * sum(array.nbytes for array in arrays) / (time.perf_counter() - begin))
    return best


def report_bandwidth(figures, times, scale, cores):
    rate = memory_bandwidth(cores)
    figures.add("memory_read_bandwidth", round(rate / 1e9, 1), "GB/s")
    for number, row_bytes in NARROW_BYTES.items():
        if number in times and "fused" in times[number]:
            floor = row_bytes * LINEITEM_ROWS * scale / rate
            took = median(times[number]["fused"])
            figures.add(f"q{number:02}_to_bandwidth_floor", round(took / floor, 2), "×", at_most=2.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--repetitions", type=int, default=PAIRS_MIN)
    parser.add_argument("--queries", default=",".join(map(str, range(1, 23))))
    parser.add_argument("--engines", default="fused,datafusion,duckdb,duckdb-parquet,hyper")
    parser.add_argument("--cold", type=int, default=1)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--preparation", type=int, default=1)
    arguments = parser.parse_args()
    queries = [int(number) for number in arguments.queries.split(",")]
    cores = len(os.sched_getaffinity(0))
    data = arguments.data or workloads.data("tpch", workloads.DATA, arguments.scale, 0)
    settings = vars(arguments) | {"data": str(data.name), "cores": cores, "duckdb": duckdb.__version__}
    figures = Figures(f"tpch-sf{arguments.scale:g}", settings)
    wanted = arguments.engines.split(",")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(data))
        engines = {}
        for name in wanted:
            if name in ("fused", "datafusion"):
                engines[name] = Trireme(server, name)
            elif name == "hyper":
                try:
                    engines[name] = Hyper(data)
                except Exception as error:  # noqa: BLE001
                    print(f"# hyper is left out: {error}")
            else:
                engines[name] = DuckDb(data, name == "duckdb", cores)
        times = hot(engines, queries, arguments.repetitions, arguments.scale)
        report_hot(figures, times, engines)
        if "fused" in engines:
            report_bandwidth(figures, times, arguments.scale, cores)
        if arguments.streams and "fused" in engines:
            one = throughput(lambda: Trireme(server, "fused"), 1, queries, arguments.scale, 3)
            many = throughput(lambda: Trireme(server, "fused"), arguments.streams, queries, arguments.scale)
            figures.add("streams_throughput_to_one_stream", round(many / one, 3), "×", at_least=0.9)
            if "duckdb" in engines:
                shared = engines["duckdb"].connection
                rival = throughput(lambda: Cursor(shared), arguments.streams, queries, arguments.scale)
                figures.add("streams_throughput_to_duckdb", round(many / rival, 3), "×", at_least=1.0)
        for engine in engines.values():
            engine.close()
    if arguments.cold:
        report_cold(figures, cold(data, queries, arguments.scale, cores))
    if arguments.preparation and "fused" in wanted:
        # It uses the session above.
        from sweep_limits import bench_preparation

        with tempfile.TemporaryDirectory(prefix="trireme-tpch-") as scratch:
            bench_preparation(figures, pathlib.Path(scratch), 10)
    figures.write()
    print(f"{figures.short()} short")


class Cursor:
    """A connection of its own to DuckDB's tables."""

    def __init__(self, connection):
        self.connection = connection.cursor()

    def run(self, sql):
        return self.connection.execute(sql).to_arrow_table()

    def close(self):
        self.connection.close()


if __name__ == "__main__":
    main()
