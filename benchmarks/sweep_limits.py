"""What planning and preparing fragments costs, seen from outside, and what happens where memory ends.

Lowering can't be timed alone from outside. It is shown as a difference (EXPLAIN under `fused` less EXPLAIN under
`datafusion`, by turns), and preparation by an upper bound: the time of whole runs over tables of a few rows.
"""

import contextlib
import re
import shutil
import threading
import time
import urllib.request

import duckdb
import numpy
from bench_tpch import TABLES, Trireme, median
from figures import percentile
from tpch_literals import text as tpch_query
from trireme import Server, generate_tpch

TPCH_QUERIES = range(1, 23)
TINY_ROWS = 10
PREPARED_MS_MAX = 1.0
# The server takes its counters over into the metrics once a second.
METRICS_SECONDS = 1.3
UNITS_MS = {"ns": 1e-6, "µs": 1e-3, "ms": 1.0, "s": 1e3}

CACHE_BYTES = 64 << 20
QUERY_BYTES = 64 << 20
CLEAR = re.compile(r"memory|resource", re.IGNORECASE)


def random_access_steps(figures, decades, repetitions, seed=11):
    """The last step of each sweep as bare memory makes it, to be read beside the measured ones: a table of a word per key, in random
    order filled and read (join) or read and written (groups) 10^decades times by numpy on one core, without any hashing."""
    rng = numpy.random.default_rng(seed)
    rows = 10**decades
    shuffled = rng.permutation(rows)
    seconds = {"join": [], "groupby": []}
    for decade in (decades - 1, decades):
        count = 10**decade
        build, probes = rng.permutation(count), shuffled % count
        found, table = numpy.empty(rows, numpy.int32), numpy.zeros(count, numpy.int32)
        samples = {"join": [], "groupby": []}
        for _ in range(repetitions):
            begin = time.perf_counter()
            table[build] = 1
            numpy.take(table, probes, out=found, mode="clip")
            middle = time.perf_counter()
            numpy.take(table, probes, out=found, mode="clip")
            table[probes] = found
            samples["join"].append(middle - begin)
            samples["groupby"].append(time.perf_counter() - middle)
        for name, values in samples.items():
            seconds[name].append(median(values))
    for name, (before, after) in seconds.items():
        figures.add(f"{name}_last_step_of_random_access_alone", round(after / before, 2), "×")


def counters(server, settle=True) -> dict:
    """The server's metrics without labels, as numbers."""
    if settle:
        time.sleep(METRICS_SECONDS)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.split() for line in lines if not line.startswith("#") and "{" not in line]
    return {name: float(value) for name, value in pairs}


def elapsed_ms(engine, sql):
    begin = time.perf_counter()
    engine.run(sql)
    return (time.perf_counter() - begin) * 1000


def make_tiny_tpch(folder):
    """TPC-H's tables with a few rows each: what a run costs there is not the data's."""
    whole = generate_tpch(0.01, folder / "whole")
    tiny = folder / "tiny"
    tiny.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        pattern = f"read_parquet('{whole / table}.parquet')"
        duckdb.execute(f"COPY (SELECT * FROM {pattern} LIMIT {TINY_ROWS}) TO '{tiny / table}.parquet' (FORMAT parquet)")
    shutil.rmtree(whole)
    return tiny


def bench_planning(figures, scratch, repetitions):
    with Server(make_tiny_tpch(scratch / "planning")) as server, contextlib.ExitStack() as stack:
        fused, plain = (stack.enter_context(contextlib.closing(Trireme(server, name))) for name in ("fused", "datafusion"))
        for engine in (fused, plain):
            engine.run("SET trireme.plan_cache = false")
        bench_fragments(figures, fused, plain, max(5, repetitions // 10))
        tiny_query(figures, fused, plain, repetitions)


def bench_preparation(figures, scratch, repetitions):
    """What lowering and preparing TPC-H's fragments costs, without the rest of [`bench_planning`]."""
    with Server(make_tiny_tpch(scratch / "planning")) as server, contextlib.ExitStack() as stack:
        fused, plain = (stack.enter_context(contextlib.closing(Trireme(server, name))) for name in ("fused", "datafusion"))
        for engine in (fused, plain):
            engine.run("SET trireme.plan_cache = false")
        bench_fragments(figures, fused, plain, repetitions)


def bench_fragments(figures, fused, plain, repetitions):
    lowered = lowering(figures, fused, plain, repetitions)
    per_fragment = preparation(figures, fused, lowered, repetitions)
    # An upper bound: the run over a few rows is in it.
    p99 = percentile(per_fragment, 0.99)
    figures.add("fragment_lowering_and_preparation_ms_p99", round(p99, 3), "ms", at_most=PREPARED_MS_MAX)


def lowering(figures, fused, plain, repetitions):
    """EXPLAIN plans and runs nothing; what fused pipelines add to it is lowering and the rewrite; by query."""
    planned, added = [], []
    for number in TPCH_QUERIES:
        sql = f"EXPLAIN {tpch_query(number)}"
        pairs = [(elapsed_ms(fused, sql), elapsed_ms(plain, sql)) for _ in range(repetitions + 2)][2:]
        planned.append(median([ours for ours, _ in pairs]))
        added.append(median([ours - theirs for ours, theirs in pairs]))
    figures.add("tpch_explain_fused_ms_median", round(median(planned), 2), "ms")
    figures.add("tpch_explain_fused_ms_max", round(max(planned), 2), "ms")
    # Each a median of paired differences, so that the wire's noise is not counted as lowering.
    figures.add("tpch_lowering_by_difference_ms_median", round(median(added), 3), "ms")
    figures.add("tpch_lowering_by_difference_ms_max", round(max(added), 3), "ms")
    return dict(zip(TPCH_QUERIES, added))


def preparation(figures, fused, lowered, repetitions):
    """Time inside FragmentExec over a few rows: opening columns, preparing every kernel, handing over to workers, running.
    With each fragment's share of what its query's lowering took."""
    per_fragment, together, unmeasured = [], [], []
    for number in TPCH_QUERIES:
        sql = f"EXPLAIN ANALYZE {tpch_query(number)}"
        fused.run(sql)
        for _ in range(repetitions):
            found = fragment_times("\n".join(fused.run(sql).column("plan").to_pylist()))
            per_fragment += [ms / fragments for ms, fragments in found]
            share = max(lowered[number], 0.0) / max(sum(fragments for _, fragments in found), 1)
            together += [share + ms / fragments for ms, fragments in found]
            if not found:
                unmeasured.append(number)
    if unmeasured:
        print(f"# no fragment in the plans of Q{sorted(set(unmeasured))}")
    figures.add("tiny_fragment_prepare_and_run_ms_median", round(median(per_fragment), 3), "ms")
    # An upper bound of preparation: the run over a few rows is in it.
    p99 = percentile(per_fragment, 0.99)
    figures.add("tiny_fragment_prepare_and_run_ms_p99", round(p99, 3), "ms", at_most=PREPARED_MS_MAX)
    return together


def fragment_times(plan):
    """(ms, fragments) of each FragmentExec of an EXPLAIN ANALYZE."""
    pattern = r"FragmentExec: [^\n]*?fragments=(\d+) [^\n]*?elapsed_compute=([0-9.]+)(ns|µs|ms|s)\b"
    return [(float(value) * UNITS_MS[unit], int(count)) for count, value, unit in re.findall(pattern, plan)]


def tiny_query(figures, fused, plain, repetitions):
    """Latency that a client sees of a small query, by how it came to its plan."""

    def ask(engine, index):
        return elapsed_ms(engine, f"SELECT count(*) AS n, sum(n_regionkey) AS s FROM nation WHERE n_nationkey < {index}")

    samples = {"planned": [], "plan_cache_hit": [], "datafusion": [], "select_1": []}
    before = 0
    for index in range(repetitions):
        fused.run("SET trireme.plan_cache = false")
        samples["planned"].append(ask(fused, index))
        fused.run("SET trireme.plan_cache = true")
        took = ask(fused, index)
        hits = plan_hits(fused)
        if hits > before:
            samples["plan_cache_hit"].append(took)
        before = hits
        samples["datafusion"].append(ask(plain, index))
        samples["select_1"].append(elapsed_ms(fused, "SELECT 1 AS one"))
    for name, values in samples.items():
        if values:
            figures.add(f"tiny_query_{name}_ms_median", round(median(values), 3), "ms")
            figures.add(f"tiny_query_{name}_ms_p99", round(percentile(values, 0.99), 3), "ms")
    # A shape is noted, then learnt, then hit; learning goes on beside the next query.
    share = len(samples["plan_cache_hit"]) / repetitions
    figures.add("tiny_query_plan_cache_hit_share", round(share, 3), "", at_least=0.9 if repetitions > 50 else None)


def plan_hits(engine) -> int:
    rows = engine.run("SELECT hits FROM system.plans WHERE shape LIKE '%FROM nation%'")
    return sum(rows.column("hits").to_pylist())


def bench_memory(figures, data, decades):
    cache_within_budget(figures, data, decades)
    queries_beyond_memory(figures, data, decades)


class Sampler(threading.Thread):
    """The most that the column cache held, by the metric and by `system.columns`, while others work."""

    def __init__(self, server):
        super().__init__()
        self.server = server
        self.engine = Trireme(server, "datafusion")
        self.most = {"metric": 0.0, "columns": 0.0}
        self.samples = 0
        self.limit = counters(server)["trireme_column_cache_limit_bytes"]
        self.stop = threading.Event()

    def run(self):
        while not self.stop.wait(0.02):
            metric = counters(self.server, settle=False)["trireme_column_cache_bytes"]
            rows = self.engine.run("SELECT sum(bytes) AS b FROM system.columns").column("b").to_pylist()
            self.most["metric"] = max(self.most["metric"], metric)
            self.most["columns"] = max(self.most["columns"], float(rows[0] or 0))
            self.samples += 1

    def end(self):
        self.stop.set()
        self.join()
        self.engine.close()


def cache_within_budget(figures, data, decades):
    """Scans of several times the column cache's budget, with the cache watched."""
    budget = CACHE_BYTES if decades > 6 else 1 << 20
    with Server(data, ("--set", f"exec.column_cache_bytes={budget}")) as server:
        sampler = Sampler(server)
        sampler.start()
        clients = [threading.Thread(target=scan_everything, args=(server, decades, seed)) for seed in range(2)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        time.sleep(METRICS_SECONDS)
        sampler.end()
        evictions = counters(server, settle=False)["trireme_column_cache_evictions_total"]
    figures.add("column_cache_budget_mib", budget / 2**20, "MiB")
    figures.add("column_cache_budget_kept_by_metric", round(sampler.limit / budget, 3), "×", at_most=1.0)
    figures.add("column_cache_peak_to_budget_by_metric", round(sampler.most["metric"] / budget, 3), "×", at_most=1.0)
    figures.add("column_cache_peak_to_budget_by_rows", round(sampler.most["columns"] / budget, 3), "×", at_most=1.0)
    figures.add("column_cache_samples", sampler.samples, "")
    figures.add("column_cache_evictions", evictions, "", at_least=1)


def scan_everything(server, decades, seed):
    with contextlib.closing(Trireme(server, "fused")) as engine:
        for turn in range(2):
            for kind in ("sparse", "dense"):
                for decade in range(decades, 0, -1) if (seed + turn) % 2 else range(1, decades + 1):
                    engine.run(f"SELECT max(k{decade}) AS k, sum(v) AS v FROM groups_{kind}_random")


def queries_beyond_memory(figures, data, decades):
    """Queries that need more than a query may have: each completes or fails alone, with a clear error."""
    budget = QUERY_BYTES if decades > 6 else 1 << 20
    table, build = "groups_sparse_random", f"build_sparse_random_{decades}"
    key = f"k{decades}"
    queries = {
        "groupby": f"SELECT count(*) AS n, max(s) AS s FROM (SELECT {key}, sum(v) AS s FROM {table} GROUP BY {key}) AS g",
        "distinct": f"SELECT count(DISTINCT {key}) AS n FROM {table}",
        "join": f"SELECT count(*) AS n, sum(p.v + b.w) AS s FROM {table} AS p JOIN {build} AS b ON p.{key} = b.k",
        "sort": f"SELECT {key}, v FROM {table} ORDER BY v, {key}",
    }
    outcomes = {"completed": [], "failed_clearly": [], "failed_otherwise": []}
    with Server(data, ("--set", f"exec.query_memory_bytes={budget}")) as server:
        bystander = Bystander(server, 10**decades)
        bystander.start()
        for name, sql in queries.items():
            with contextlib.closing(Trireme(server, "fused")) as engine:
                outcomes[outcome(engine, name, sql)].append(name)
        alone = bystander.end()
        alive = server.process.poll() is None
        counted = counters(server)
        peak = server.memory_bytes("VmHWM") if alive else 0
    figures.add("query_memory_limit_mib", budget / 2**20, "MiB")
    for kind, names in outcomes.items():
        figures.add(f"beyond_memory_{kind}", len(names), "", at_most=0 if kind == "failed_otherwise" else None)
        print(f"# beyond memory, {kind}: {' '.join(names) or 'none'}")
    # With the column cache, which has a budget of its own.
    figures.add("beyond_memory_peak_resident_mib", round(peak / 2**20), "MiB")
    figures.add("beyond_memory_fallbacks", counted["trireme_fragment_fallbacks_total"], "")
    figures.add("beyond_memory_other_queries_failed", alone, "", at_most=0)
    figures.add("beyond_memory_server_lives", int(alive), "", at_least=1)
    figures.add("beyond_memory_reserved_afterwards_bytes", counted["trireme_memory_reserved_bytes"], "B", at_most=0)


def outcome(engine, name, sql):
    try:
        engine.run(sql)
    except Exception as error:  # noqa: BLE001
        print(f"# {name}: {str(error)[:300]!r}")
        return "failed_clearly" if CLEAR.search(str(error)) else "failed_otherwise"
    return "completed"


class Bystander(threading.Thread):
    """A client with small queries, whose failure would be another query's fault."""

    def __init__(self, server, rows):
        super().__init__()
        self.engine = Trireme(server, "fused")
        self.rows = rows
        self.failures = 0
        self.stop = threading.Event()

    def run(self):
        while not self.stop.wait(0.05):
            try:
                found = self.engine.run("SELECT count(*) AS n FROM groups_dense_random WHERE k1 >= 0").column("n")[0].as_py()
                self.failures += found != self.rows
            except Exception as error:  # noqa: BLE001
                self.failures += 1
                print(f"# a small query failed: {str(error)[:200]!r}")

    def end(self):
        self.stop.set()
        self.join()
        self.engine.close()
        return self.failures
