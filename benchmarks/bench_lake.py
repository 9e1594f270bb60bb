#!/usr/bin/env python3
"""The lake's figures: our server over simulated stores, beside stock DataFusion, DuckDB and pyarrow, in one run.

    bench_lake.py [--only scan,tpch,…] [--repetitions 3] [--gigabytes 4] [--scales 1,10] [--queries 10000]

Parts: scan (share of the simulated ceiling, near and far), decode (what decoders wait for), tpch (total over near), local
(local files with and without the lake), precision (bytes and round trips), slow5 (late first bytes), sick (faults), window
(memory), memory and disk (tiers), zipf (hit rate of a small cache). A store's ceiling is what all of its connections carry
together: 10 Gbit/s. `raw` is what plain sockets read from the same store at that moment, with all cores: what this machine
could have taken.
"""

import argparse
import itertools
import mmap
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import duckdb  # noqa: E402
import numpy  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.parquet as parquet  # noqa: E402
import workloads  # noqa: E402
from figures import Figures, percentile  # noqa: E402
from lake_kit import CEILING_BYTES_PER_SECOND, Ours, Rival, Store, Wide, median, raw_fetch  # noqa: E402

TABLES = workloads.TPCH_TABLES
FILES = 4
GROUPS_PER_GIGABYTE = 4  # per file, of 64 MiB


class Bench:
    """What all parts share."""

    def __init__(self, arguments, figures, store):
        self.arguments = arguments
        self.figures = figures
        self.store = store
        self._made = {}

    def made(self, prefix, gigabytes) -> Wide:
        if prefix not in self._made:
            groups = max(1, round(gigabytes * GROUPS_PER_GIGABYTE))
            self._made[prefix] = Wide(self.store, "lake", FILES, groups, prefix)
        return self._made[prefix]

    @property
    def wide(self) -> Wide:
        return self.made("wide/", self.arguments.gigabytes)

    @property
    def narrow(self) -> Wide:
        """A smaller one, for engines that take their time."""
        return self.made("narrow/", min(1, self.arguments.gigabytes))

    def scan(self, settings=None, variant="fused", wide=None, before=None):
        """One cold scan by a fresh server, after another of the table `before` if one is given: seconds, counters of the
        store, of ours, and our processor time."""
        wide = wide or self.wide
        with Ours(self.store, settings=settings) as ours:
            ours.run(f"SET trireme.cpu_variant = '{variant}'")
            ours.tables("lake", {"wide": wide.key} | ({"before": before.key} if before else {}))
            if before:
                ours.run(before.sql.replace("FROM wide", "FROM before"))
            sofar = ours.stores()
            self.store.reset()
            cpu, begin = ours.cpu(), time.perf_counter()
            table = ours.run(wide.sql)
            seconds = time.perf_counter() - begin
            used = ours.cpu() - cpu
            wide.check(table.to_pylist()[0].values())
            counted = {name: count - sofar.get(name, 0) for name, count in ours.stores().items()}
            return seconds, self.store.counters(), counted, used

    def tpch(self, scale) -> pathlib.Path:
        return self.arguments.data or workloads.data("tpch", workloads.DATA, scale, 0)

    def mount_tpch(self, scale):
        """TPC-H's tables as a bucket of the store; their keys."""
        self.store.mount("tpch", self.tpch(scale))
        return {table: f"{table}.parquet" for table in TABLES}


def scan(bench):
    """Three ways: a server whose column cache is full, which lets decoded columns go for those that come; a fresh process
    that keeps what it decodes, whose memory the system has to find first; and one that keeps nothing, which decodes least."""
    figures, store, wide = bench.figures, bench.store, bench.wide
    ceiling_seconds = wide.bytes / CEILING_BYTES_PER_SECOND
    gigabytes = wide.bytes / 1e9
    keys = [f"wide/{index:02}.parquet" for index in range(FILES)]
    full = {"exec.column_cache_bytes": round(wide.bytes * 1.1), "lake.memory_bytes": 0}
    kinds = {
        "": (full, bench.made("before/", bench.arguments.gigabytes)),
        "_fresh_process": ({}, None),
        "_keeping_nothing": ({"exec.column_cache": "false"}, None),
    }
    figures.add("memory_from_the_system", round(fresh_memory(1 << 30), 3), "s/GB")
    for profile, target, connections in (("near", 0.9, 32), ("far", 0.85, 96)):
        raw = []
        runs = {kind: [] for kind in kinds}
        for _ in range(bench.arguments.repetitions):
            store.profile(profile)
            raw.append(raw_fetch(store, "lake", keys, wide.bytes // FILES, connections))
            for kind, (settings, before) in kinds.items():
                runs[kind].append(bench.scan(settings, before=before))
        figures.add(f"scan_{profile}_raw_share_of_ceiling", round(ceiling_seconds / median(raw), 3), "×")
        for kind, each in runs.items():
            seconds, name = median([run[0] for run in each]), f"scan_{profile}{kind}"
            aim = None if kind == "_fresh_process" else target
            figures.add(f"{name}_share_of_ceiling", round(ceiling_seconds / seconds, 3), "×", at_least=aim)
            figures.add(f"{name}_share_of_raw", round(median(raw) / seconds, 3), "×")
            figures.add(f"{name}_goodput", round(wide.bytes / seconds / 1e6), "MB/s")
            figures.add(f"{name}_server_cpu", round(median([run[3] for run in each]) / gigabytes, 3), "s/GB")
            own = median([run[1]["cpu_seconds"] for run in each])
            figures.add(f"{name}_store_cpu", round(own / gigabytes, 3), "s/GB")
        rivals(bench, profile, ceiling_seconds / median([run[0] for run in runs[""]]))


def fresh_memory(size):
    """Seconds per gigabyte until memory that the process didn't have is there."""
    begin = time.perf_counter()
    numpy.empty(size, dtype=numpy.uint8)[:: mmap.PAGESIZE] = 1
    return (time.perf_counter() - begin) * 1e9 / size


def decode(bench):
    """A scan whose decoding takes longer than its bytes: the decoders should never wait, and so be as fast as locally."""
    data = bench.tpch(1)
    keys = bench.mount_tpch(1)
    sql = dict(workloads.queries("tpch"))["q01"]
    bench.store.profile("near")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lake-decode-", dir=data.parent))
    os.link(data / "lineitem.parquet", folder / "lineitem.parquet")
    near, plain, waits = [], [], []
    cores = len(os.sched_getaffinity(0))
    try:
        for _ in range(bench.arguments.repetitions):
            with Ours(bench.store) as ours:
                ours.tables("tpch", {"lineitem": keys["lineitem"]})
                near.append(ours.timed(sql))
            with Ours(bench.store) as ours:
                ours.tables("tpch", {"lineitem": keys["lineitem"]})
                begin = time.perf_counter()
                counted = ours.analyzed(sql)
                waits.append(counted.get("wait_us", 0) / 1e6 / cores / (time.perf_counter() - begin))
            with Ours(data=folder) as ours:
                plain.append(ours.timed(sql))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bench.figures.add("decode_q01_cold_near_to_cold_local", round(median(near) / median(plain), 3), "×")
    bench.figures.add("decode_q01_cold_near_minus_local", round((median(near) - median(plain)) * 1000), "ms")
    bench.figures.add("decode_q01_decoders_wait", round(100 * median(waits), 1), "%")


def rivals(bench, profile, ours):
    """The same scan of fewer bytes by others, once each; `ours` is our share of the ceiling."""
    wide = bench.narrow
    ceiling_seconds = wide.bytes / CEILING_BYTES_PER_SECOND
    shares = {}
    for engine in bench.arguments.rivals:
        try:
            with Rival(engine, bench.store, "lake", {"wide": wide.key}) as rival:
                begin = time.perf_counter()
                wide.check(rival.run(wide.sql)[0])
                shares[f"{engine}-{rival.version}"] = ceiling_seconds / (time.perf_counter() - begin)
        except RuntimeError as error:
            print(f"# {engine} is left out: {error}", flush=True)
    seconds = bench.scan({"lake.enabled": "false"}, "datafusion", wide)[0]
    shares["ours-without-lake"] = ceiling_seconds / seconds
    for name, share in shares.items():
        bench.figures.add(f"scan_{profile}_{name}_share_of_ceiling", round(share, 3), "×")
        bench.figures.add(f"scan_{profile}_ours_to_{name}", round(ours / share, 2), "×")


def tpch(bench):
    """22 queries in turn, of a fresh process; and, at the smallest scale, a fresh process for each."""
    queries = workloads.queries("tpch")
    scales = [float(scale) for scale in bench.arguments.scales.split(",")]
    bench.store.profile("near")
    for scale in scales:
        keys = bench.mount_tpch(scale)
        tag = f"tpch_sf{scale:g}"
        with Ours(bench.store) as ours:
            ours.tables("tpch", keys)
            bench.store.reset()
            ours_each = {label: ours.timed(sql) for label, sql in queries}
            sent = bench.store.total()["sent_bytes"]
            figure_stores(bench.figures, tag, ours.stores(), sent)
        stock_each = stream(bench, keys, queries)
        both = [label for label, _ in queries if label in stock_each]
        total, stock = (sum(times[label] for label in both) for times in (ours_each, stock_each))
        bench.figures.add(f"{tag}_ours", round(total, 2), "s")
        bench.figures.add(f"{tag}_datafusion", round(stock, 2), "s")
        bench.figures.add(f"{tag}_to_datafusion", round(total / stock, 3), "×", at_most=0.5)
        line = "  ".join(f"{label} {ours_each[label]:.2f}/{stock_each[label]:.2f}" for label in both)
        print(f"# {tag} s, ours/datafusion: {line}", flush=True)
        if scale == min(scales) and bench.arguments.each:
            cold = 0.0
            for _, sql in queries:
                with Ours(bench.store) as ours:
                    ours.tables("tpch", keys)
                    cold += ours.timed(sql)
            bench.figures.add(f"{tag}_each_cold_ours", round(cold, 2), "s")
            bench.figures.add(f"{tag}_each_cold_to_datafusion", round(cold / stock, 3), "×", at_most=0.5)


def stream(bench, keys, queries):
    """Stock DataFusion, which keeps no data between queries; queries that it fails are left out, and said so."""
    times = {}
    with Rival("datafusion", bench.store, "tpch", keys) as rival:
        for label, sql in queries:
            try:
                times[label] = rival.timed(sql)
            except RuntimeError as error:
                print(f"# datafusion fails {label}: {error}"[:200], flush=True)
    return times


def figure_stores(figures, tag, stores, sent):
    """Of the bytes that the store sent: those that scans wanted."""
    wasted = stores["gap_bytes"] + stores["unused_bytes"]
    used = min(stores["needed_bytes"], sent) - wasted
    figures.add(f"{tag}_fetched", round(sent / 1e6, 1), "MB")
    figures.add(f"{tag}_used_share_of_fetched", round(used / sent, 3), "×", at_least=0.9)


def local(bench):
    """TPC-H SF 1 from local files, decoded anew by every query, with the lake and without, by turns."""
    data = bench.tpch(1)
    folders = []
    for _ in range(2):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="lake-local-", dir=data.parent))
        for table in TABLES:
            os.link(data / f"{table}.parquet", folder / f"{table}.parquet")
        folders.append(folder)
    times = ([], [])
    base = {"exec.column_cache": "false"}
    try:
        with (
            Ours(data=folders[0], settings=base) as with_lake,
            Ours(data=folders[1], settings=base | {"lake.enabled": "false"}) as without,
        ):
            engines = (with_lake, without)
            for label, sql in workloads.queries("tpch"):
                for engine in engines:
                    engine.run(sql)
                pairs = ([], [])
                for repetition in range(bench.arguments.repetitions):
                    order = (0, 1) if repetition % 2 else (1, 0)
                    for index in order:
                        pairs[index].append(engines[index].timed(sql))
                for index in range(2):
                    times[index].append(min(pairs[index]))
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    bench.figures.add("local_with_to_without_lake", round(sum(times[0]) / sum(times[1]), 3), "×", at_most=1.03)


def precision(bench):
    figures, store = bench.figures, bench.store
    keys = bench.mount_tpch(1)
    queries = dict(workloads.queries("tpch"))
    store.profile("near")
    middle = "SELECT sum(o_totalprice), count(*) FROM orders WHERE o_orderkey BETWEEN 3000000 AND 3010000"
    top = "SELECT * FROM lineitem ORDER BY l_extendedprice DESC LIMIT 10"
    chosen = {label: queries[label] for label in ("q01", "q03", "q06", "q14")} | {"few_rows": middle, "top": top}
    for label, sql in chosen.items():
        with Ours(store) as ours:
            ours.tables("tpch", keys)
            before = ours.stores()
            store.reset()
            ours.run(sql)
            sent = store.total()["sent_bytes"]
            after = ours.stores()
        figure_stores(figures, f"precision_{label}", {name: after[name] - before[name] for name in after}, sent)
    rounds(bench)


def rounds(bench):
    """Round trips to the first batch: the time in a store whose every answer takes 400 ms and carries any bandwidth. Which
    files there are is asked at every statement, unless `catalog.refresh_interval_ms` lets it be known for a while."""
    figures, store = bench.figures, bench.store
    rng = numpy.random.default_rng(3)
    table = pyarrow.table({name: rng.integers(0, 1 << 40, 1 << 20) for name in "xyz"})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, use_dictionary=False)
    store.put("lake", "rounds/a.parquet", sink.getvalue())
    for suffix, settings in (("", {}), ("_files_known", {"catalog.refresh_interval_ms": 60_000})):
        store.profile("none")
        with Ours(store, settings=settings) as ours:
            ours.tables("lake", {"rounds": "rounds/"})
            ours.restart()
            trips = []
            for column in "xy":
                store.profile("none", first_byte_ms=400)
                store.reset()
                trips.append(int(ours.first_batch(f"SELECT {column} FROM rounds") / 0.4))
                print(f"# {column}{suffix}:", begun(store), flush=True)
        limits = (3, 1) if suffix == "" else (None, 1)
        figures.add(f"first_batch_cold{suffix}", trips[0], "round trips", at_most=limits[0])
        figures.add(f"first_batch_with_cached_footer{suffix}", trips[1], "round trips", at_most=limits[1])
    store.profile("near")


def begun(store):
    """The last requests as they began: `list@0 get@400 get@800` (ms)."""
    requests = sorted(store.requests(), key=lambda request: request["start_us"])
    return " ".join(f"{request['kind']}@{request['start_us'] // 1000}" for request in requests)


def slow5(bench):
    """The same scan with 5 % of first bytes ten times as late."""
    times, requests, hedges = {"near": [], "slow5": []}, {"near": [], "slow5": []}, []
    for repetition in range(bench.arguments.repetitions):
        for profile in ("near", "slow5") if repetition % 2 else ("slow5", "near"):
            bench.store.profile(profile)
            seconds, counters, stores, _ = bench.scan({"exec.column_cache": "false"})
            times[profile].append(seconds)
            requests[profile].append(counters["total"]["requests"]["get"])
            if profile == "slow5":
                hedges.append(100 * stores["hedges"] / (stores["requests"] - stores["hedges"]))
    bench.store.profile("near")
    figures = bench.figures
    figures.add("slow5_to_healthy", round(median(times["slow5"]) / median(times["near"]), 3), "×", at_most=1.15)
    figures.add("slow5_extra_requests", round(median(hedges), 2), "%", at_most=5)
    more = 100 * (median(requests["slow5"]) / median(requests["near"]) - 1)
    figures.add("slow5_gets_more_than_healthy", round(more, 2), "%")


def sick(bench):
    """Many queries over a sick store by eight clients: none may fail, none may be wrong."""
    total = bench.arguments.queries
    data = bench.tpch(0.1)
    bench.store.mount("tpch", data)
    random_numbers = random.Random(7)
    spans = [(start, start + 20_000) for start in (random_numbers.randrange(1, 580_000) for _ in range(100))]
    sqls = [
        f"SELECT count(*) AS n, sum(o_totalprice) AS s, min(o_orderdate) AS d FROM orders WHERE o_orderkey BETWEEN {a} AND {b}"
        for a, b in spans
    ]
    truth = duckdb.connect()
    truth.execute(f"CREATE VIEW orders AS SELECT * FROM read_parquet('{data / 'orders.parquet'}')")
    expected = [truth.execute(sql).fetchone() for sql in sqls]
    bench.store.profile("sick")
    failed, wrong, times = [], [], []
    turns = itertools.count()
    settings = {"exec.column_cache": "false", "lake.memory_bytes": 0}
    with Ours(bench.store, settings=settings) as ours:
        ours.tables("tpch", {"orders": "orders.parquet"})
        bench.store.reset()
        begin = time.perf_counter()

        def client():
            with ours.client() as connection:
                while (turn := next(turns)) < total:
                    start = time.perf_counter()
                    try:
                        row = ours.run(sqls[turn % len(sqls)], connection).to_pylist()[0]
                    except Exception as error:  # noqa: BLE001
                        failed.append(str(error))
                        continue
                    times.append(time.perf_counter() - start)
                    if tuple(row.values()) != expected[turn % len(sqls)]:
                        wrong.append((sqls[turn % len(sqls)], row))

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin
        stores = ours.stores()
    counters = bench.store.total()
    bench.store.profile("near")
    for message in failed[:3] + wrong[:3]:
        print(f"# sick: {message}"[:300], flush=True)
    figures = bench.figures
    figures.add("sick_queries", total, "")
    figures.add("sick_failed", len(failed), "", at_most=0)
    figures.add("sick_wrong", len(wrong), "", at_most=0)
    figures.add("sick_faults_given", sum(counters["faults"].values()), "")
    figures.add("sick_requests", sum(counters["requests"].values()), "")
    figures.add("sick_retries", stores["retries"], "")
    figures.add("sick_rate", round(total / seconds, 1), "queries/s")
    if times:
        figures.add("sick_p50", round(median(times) * 1000), "ms")
        figures.add("sick_p99", round(percentile(times, 0.99) * 1000), "ms")


def window(bench):
    """Bytes fetched ahead at most, by a scan that could fetch far more."""
    limit = 64 << 20
    bench.store.profile("near")
    with Ours(bench.store, settings={"lake.window_bytes": limit, "exec.column_cache": "false"}) as ours:
        ours.tables("lake", {"wide": bench.wide.key})
        resident = ours.server.memory_bytes()
        seconds = ours.timed(bench.wide.sql)
        # Gauges are set once a second.
        time.sleep(2.5)
        peak = ours.metrics()["trireme_lake_window_peak_bytes"]
        grown = ours.server.memory_bytes("VmHWM") - resident
    figures = bench.figures
    figures.add("window_peak_to_limit", round(peak / limit, 3), "×", at_most=1.0)
    figures.add("window_peak_above_half", round(peak / limit, 3), "×", at_least=0.5)
    figures.add("window_scan_goodput", round(bench.wide.bytes / seconds / 1e6), "MB/s")
    figures.add("window_peak_resident_growth", round(grown / 1e6), "MB")


MEMORY_SQL = "SELECT sum(l_quantity), sum(l_extendedprice), sum(l_discount), max(l_shipdate) FROM lineitem"


def memory(bench):
    """The same query over bytes in the memory tier and over a local file in the system's page cache, by turns."""
    data = bench.tpch(1)
    keys = bench.mount_tpch(1)
    bench.store.profile("none")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lake-memory-", dir=data.parent))
    os.link(data / "lineitem.parquet", folder / "lineitem.parquet")
    base = {"exec.column_cache": "false"}
    times = {"tier": [], "local": []}
    try:
        with (
            Ours(bench.store, settings=base | {"lake.memory_bytes": 4 << 30}) as tier,
            Ours(data=folder, settings=base) as plain,
        ):
            tier.tables("tpch", {"lineitem": keys["lineitem"]})
            for _ in range(3):
                tier.run(MEMORY_SQL)
                plain.run(MEMORY_SQL)
            bench.store.reset()
            for repetition in range(3 * bench.arguments.repetitions):
                for name, engine in (("tier", tier), ("local", plain))[:: 1 if repetition % 2 else -1]:
                    times[name].append(engine.timed(MEMORY_SQL))
            sent = bench.store.total()["sent_bytes"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bench.store.profile("near")
    figures = bench.figures
    figures.add("memory_tier_to_local_memory", round(median(times["tier"]) / median(times["local"]), 3), "×", at_most=1.05)
    figures.add("memory_tier_bytes_from_the_store", sent, "B", at_most=0)


def disk(bench):
    """A scan of what the disk tier holds after a restart, and plain reads of the same files; neither from the page cache."""
    store, wide = bench.store, Wide(bench.store, "lake", 1, 16, prefix="disk/")
    store.profile("none")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lake-disk-", dir=workloads.DATA))
    settings = {"exec.column_cache": "false", "lake.memory_bytes": 0, "lake.disk_bytes": 8 << 30, "lake.disk_dir": folder}
    try:
        with Ours(store, settings=settings) as ours:
            ours.tables("lake", {"wide": wide.key})
            # The second touch admits; what is written is written behind.
            for _ in range(4):
                ours.run(wide.sql)
                time.sleep(2)
            ours.restart()
            tier, raw, cached = [], [], []
            for _ in range(bench.arguments.repetitions):
                forget(folder)
                tier.append(wide.bytes / ours.timed(wide.sql))
                forget(folder)
                raw.append(read_files(folder, wide.bytes))
                cached.append(wide.bytes / ours.timed(wide.sql))
            stores = ours.stores()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    store.profile("near")
    figures = bench.figures
    figures.add("disk_tier_to_raw_disk", round(median(tier) / median(raw), 3), "×", at_least=0.85)
    figures.add("disk_tier_rate", round(median(tier) / 1e6), "MB/s")
    figures.add("disk_raw_rate", round(median(raw) / 1e6), "MB/s")
    figures.add("disk_tier_rate_from_page_cache", round(median(cached) / 1e6), "MB/s")
    both = stores["disk_bytes"] + stores["fetched_bytes"]
    figures.add("disk_tier_hit_rate_after_restart", round(stores["disk_bytes"] / max(1, both), 3), "×")


def forget(folder):
    """The files of a folder leave the system's page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_files(folder, wanted):
    """Bytes per second of plain reads of 1 MiB, by four threads, of as many bytes as a scan had."""
    files = [open(path, "rb", buffering=0) for path in folder.rglob("*") if path.is_file()]  # noqa: SIM115
    spans = [(file.fileno(), start) for file in files for start in range(0, os.fstat(file.fileno()).st_size, 1 << 20)]
    spans = spans[: max(1, wanted >> 20)]
    total = len(spans) << 20
    lock = threading.Lock()

    def worker():
        while True:
            with lock:
                if not spans:
                    return
                file, start = spans.pop(0)
            os.pread(file, 1 << 20, start)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    for file in files:
        file.close()
    return total / seconds


def zipf(bench):
    """Reads of 200 objects by Zipf's law, with a memory tier of a tenth of them."""
    objects, draws, rows = 200, 1000, 100_000
    total = 0
    for index in range(objects):
        rng = numpy.random.default_rng(index)
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table({"x": rng.integers(0, 1 << 40, rows)}), sink, use_dictionary=False)
        data = sink.getvalue()
        total += len(data)
        bench.store.put("lake", f"zipf/p={index}/a.parquet", data)
    bench.store.profile("none")
    settings = {"exec.column_cache": "false", "lake.memory_bytes": total // 10}
    weights = [1 / (rank + 1) for rank in range(objects)]
    picks = random.Random(11).choices(range(objects), weights, k=draws)
    best = sum(weights[: objects // 10]) / sum(weights)
    with Ours(bench.store, settings=settings) as ours:
        ours.tables("lake", {"zipf": "zipf/"})
        before = ours.stores()
        bench.store.reset()
        for pick in picks:
            ours.run(f"SELECT sum(x) FROM zipf WHERE p = {pick}")
        after = ours.stores()
    spent = {name: after[name] - before[name] for name in after}
    asked = spent["memory_bytes"] + spent["fetched_bytes"]
    bench.store.profile("near")
    bench.figures.add("zipf_hit_rate_of_a_tenth", round(spent["memory_bytes"] / max(1, asked), 3), "×")
    bench.figures.add("zipf_hit_rate_of_the_most_asked_tenth", round(best, 3), "×")


PARTS = {
    part.__name__: part for part in (scan, decode, tpch, local, precision, slow5, sick, window, memory, disk, zipf)
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, in their order")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=4, help="of the table that is scanned")
    parser.add_argument("--scales", default="1,10", help="of TPC-H")
    parser.add_argument("--each", type=int, default=1, help="also a fresh process for each query of the smallest scale")
    parser.add_argument("--queries", type=int, default=10_000, help="over the sick store")
    parser.add_argument("--rivals", default="datafusion,duckdb,pyarrow")
    parser.add_argument("--data", type=pathlib.Path, help="folder of TPC-H's tables, for all scales")
    arguments = parser.parse_args()
    arguments.rivals = [name for name in arguments.rivals.split(",") if name]
    parts = arguments.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    cores = len(os.sched_getaffinity(0))
    settings = {name: str(value) for name, value in vars(arguments).items() if name != "data"} | {"cores": cores}
    area = "lake" if parts == list(PARTS) else "lake-" + "-".join(parts)
    figures = Figures(area, settings)
    figures.add("load_before", round(os.getloadavg()[0], 1), "")
    with Store() as store:
        bench = Bench(arguments, figures, store)
        for part in parts:
            begin = time.perf_counter()
            try:
                PARTS[part](bench)
            except Exception as error:  # noqa: BLE001
                figures.add(f"{part}_ended_early", f"{type(error).__name__}: {error}"[:300], "")
            print(f"# {part} took {time.perf_counter() - begin:.0f} s", flush=True)
    figures.write()
    print(f"{figures.short()} short")


if __name__ == "__main__":
    main()
