#!/usr/bin/env python3
"""The service's own figures: start, latency, queries per second, throughput, and memory under load.

Everything is measured against pyarrow's bare Flight server (bare_server.py) with the same client in the same run, taking
turns, so that a busy machine slows both. Client and servers share the cores, as on a laptop.

    bench_service.py [--quick] [--soak-seconds 60]
"""

import argparse
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/e2e")]

import numpy  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.feather  # noqa: E402
import pyarrow.parquet  # noqa: E402
from figures import Figures, percentile  # noqa: E402
from flight_client import ask, command, connect, load, statement  # noqa: E402
from trireme import Server, generate_tpch, server_binary  # noqa: E402

ROWS = 10_000_000
# TPC-H queries of the mix: short and long ones, joins, a subquery.
MIXED_TPCH = [1, 3, 6, 12, 14, 22]
SETTLE_SECONDS = 20


def bench_start(figures, repetitions):
    times = []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as empty, Server(empty) as server:
            times.append(server.start_ms)
    figures.add("start_on_an_empty_folder_ms", statistics.median(times), "ms", at_most=300)


def bench_latency(figures, server, bare_port, rounds):
    """SELECT 1 by turns: ours, the bare server's."""
    ours, bare = connect(server.port), connect(bare_port)
    select = statement("SELECT 1")
    times = {"ours": [], "bare": []}
    for turn in range(rounds + rounds // 10):
        for name, client, descriptor in (("ours", ours, select), ("bare", bare, b"one")):
            begin = time.perf_counter()
            rows, _ = ask(client, descriptor)
            took_ms = (time.perf_counter() - begin) * 1000
            assert rows == 1
            if turn >= rounds // 10:
                times[name].append(took_ms)
    figures.add("select_1_p50_ms", percentile(times["ours"], 0.50), "ms")
    figures.add("select_1_p99_ms", percentile(times["ours"], 0.99), "ms")
    figures.add("bare_p50_ms", percentile(times["bare"], 0.50), "ms")
    figures.add("bare_p99_ms", percentile(times["bare"], 0.99), "ms")
    ratio = percentile(times["ours"], 0.50) / percentile(times["bare"], 0.50)
    figures.add("select_1_p50_to_bare", ratio, "×", at_most=1.5)


def bench_rate(figures, server, bare_port, seconds):
    for connections in (1, 8, 64):
        count, failures = load(server.port, [statement("SELECT 1")], connections, seconds)
        bare_count, _ = load(bare_port, [b"one"], connections, seconds)
        figures.add(f"queries_per_second_{connections}_connections", count / seconds, "1/s")
        figures.add(f"bare_queries_per_second_{connections}_connections", bare_count / seconds, "1/s")
        figures.add(f"errors_{connections}_connections", len(failures), "", at_most=0)


def bench_throughput(figures, server, bare_port, repetitions):
    """Ten million rows: from Parquet, from an Arrow file, made on the fly; and the bare server, from memory and from the
    same Parquet file."""
    ours, bare = connect(server.port), connect(bare_port)
    made = (
        "SELECT value AS id, value * 0.5 AS price, arrow_cast(CAST(value % 2500 AS INT), 'Date32') AS day, 'abcdefgh' AS tag "
        f"FROM range({ROWS})"
    )
    ways = {
        "bare": (bare, b"big"),
        "bare_parquet": (bare, b"file"),
        "parquet": (ours, statement("SELECT * FROM big")),
        "arrow_file": (ours, statement("SELECT * FROM big_arrow")),
        "generated": (ours, statement(made)),
    }
    best = {}
    for _ in range(repetitions):
        for name, (client, descriptor) in ways.items():
            begin = time.perf_counter()
            rows, size_bytes = ask(client, descriptor)
            took_s = time.perf_counter() - begin
            assert rows == ROWS, f"{name}: {rows} rows"
            best.setdefault(name, []).append((took_s, size_bytes))
    rates = {}
    for name, runs in best.items():
        took_s, size_bytes = statistics.median(run[0] for run in runs), runs[0][1]
        rates[name] = ROWS / took_s
        figures.add(f"{name}_rows_per_second", ROWS / took_s / 1e6, "million/s")
        figures.add(f"{name}_gb_per_second", size_bytes / took_s / 1e9, "GB/s")
    figures.add("parquet_rows_to_bare", rates["parquet"] / rates["bare"], "×", at_least=0.8)
    figures.add("parquet_rows_to_bare_parquet", rates["parquet"] / rates["bare_parquet"], "×")
    figures.add("arrow_file_rows_to_bare", rates["arrow_file"] / rates["bare"], "×")
    figures.add("generated_rows_to_bare", rates["generated"] / rates["bare"], "×", at_least=0.8)


def soak_mix():
    """Descriptors of the mixed load, shuffled the same way each run."""
    tpch = HERE.parent / "tests/tpch"
    mix = [statement("SELECT 1")] * 40
    mix += [statement(f"SELECT * FROM orders WHERE o_orderkey = {key}") for key in range(1, 1000, 40)]
    mix += [statement("SELECT o_orderstatus, count(*) FROM orders GROUP BY o_orderstatus")] * 5
    mix += [statement("SELECT * FROM customer LIMIT 5000")] * 5
    mix += [statement("SELECT * FROM information_schema.columns")] * 3
    mix += [statement("SET trireme.batch_rows = 4096")] * 3
    mix += [command("CommandGetTables"), command("CommandGetSqlInfo"), command("CommandGetDbSchemas")] * 3
    mix += [statement((tpch / f"q{number:02}.sql").read_text()) for number in MIXED_TPCH]
    random.Random(1).shuffle(mix)
    return mix


def bench_soak(figures, server, seconds, clients=64):
    mix = soak_mix()
    # The level before is a warm one: caches filled and pools grown by the same load.
    _, failures = load(server.port, mix, clients, max(5, seconds / 6))
    time.sleep(3)
    before = server.memory_bytes()
    count, more = load(server.port, mix, clients, seconds)
    failures += more
    peak = server.memory_bytes("VmHWM")
    after = settle(server, before)
    for text in sorted(set(failures))[:5]:
        print(f"  error: {text}")
    figures.add("soak_queries", count, "")
    figures.add("soak_errors", len(failures), "", at_most=0)
    figures.add("soak_memory_before_mib", before / 2**20, "MiB")
    figures.add("soak_memory_peak_mib", peak / 2**20, "MiB")
    figures.add("soak_memory_after_mib", after / 2**20, "MiB")
    figures.add("soak_memory_after_to_before", after / before, "×", at_most=1.2)


def settle(server, before):
    """Resident memory once it is back near `before`, or what it is when the time to settle is over."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (now := server.memory_bytes()) > 1.05 * before and time.monotonic() < deadline:
        time.sleep(0.5)
    return now


def make_big(folder) -> pathlib.Path:
    """The ten million rows as a Parquet file and an Arrow file in the data folder."""
    numbers = numpy.arange(ROWS)
    tags = pyarrow.array([f"tag{n:05}" for n in range(10_000)])
    table = pyarrow.table(
        {
            "id": numbers,
            "price": numpy.random.default_rng(1).random(ROWS),
            "day": pyarrow.array((numbers % 2500 + 8000).astype("int32")).cast(pyarrow.date32()),
            "tag": tags.take(pyarrow.array(numbers % 10_000)),
        }
    )
    path = folder / "big.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=1_000_000)
    pyarrow.feather.write_feather(table, folder / "big_arrow.arrow", compression="uncompressed")
    return path


def start_bare(parquet):
    process = subprocess.Popen([sys.executable, str(HERE / "bare_server.py"), str(parquet)], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions, nothing written: to see that it works")
    parser.add_argument("--soak-seconds", type=float, default=60)
    arguments = parser.parse_args()
    quick = arguments.quick
    settings = {
        "profile": pathlib.Path(server_binary()).parent.name,
        "rows": ROWS,
        "tpch_scale": 0.1,
        "soak_seconds": 5 if quick else arguments.soak_seconds,
        "server": "defaults",
        "client": f"pyarrow {pyarrow.__version__}, on the same machine",
        "quick": quick,
    }
    figures = Figures("service", settings)
    with tempfile.TemporaryDirectory() as scratch:
        data = generate_tpch(0.1, pathlib.Path(scratch) / "data")
        parquet = make_big(data)
        bench_start(figures, 3 if quick else 7)
        with Server(data) as server:
            bare, bare_port = start_bare(parquet)
            try:
                bench_latency(figures, server, bare_port, 200 if quick else 3000)
                bench_rate(figures, server, bare_port, 1 if quick else 4)
                bench_throughput(figures, server, bare_port, 1 if quick else 3)
            finally:
                bare.kill()
                bare.wait()
        with Server(data) as server:
            bench_soak(figures, server, settings["soak_seconds"])
    if not quick:
        figures.write()
    short = figures.short()
    print(f"{len(figures.rows)} figures, {short} short")
    return 0


if __name__ == "__main__":
    sys.exit(main())
