#!/usr/bin/env python3
"""How cost grows with the number of groups and with the build side of a join; what planning and preparing fragments costs;
what happens where memory ends.

    bench_sweeps.py [--decades 7] [--repetitions 5] [--data DIR] [--only groups,joins,planning,memory] [--quick]

Sweeps: 10^decades rows; fused pipelines, DataFusion's operators and DuckDB on its own tables by turns in one run, on all
cores, columns resident, medians. A step is the ratio of times of neighbouring decades of one family of keys.
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import duckdb  # noqa: E402
import svg  # noqa: E402
import sweep_data  # noqa: E402
from bench_tpch import Trireme, geomean, median  # noqa: E402
from figures import Figures  # noqa: E402
from sweep_limits import bench_memory, bench_planning, counters, random_access_steps  # noqa: E402
from trireme import Server, server_binary  # noqa: E402

STEP_MAX = 3.0


class DuckDb:
    """DuckDB in this process over tables of its own: no wire to cross, which is in its favour."""

    def __init__(self, data, tables, cores):
        self.connection = duckdb.connect(":memory:", config={"threads": cores})
        for table in tables:
            self.connection.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{data / table}.parquet')")

    def run(self, sql):
        return self.connection.sql(sql).to_arrow_table()

    def close(self):
        self.connection.close()


def group_query(kind, order, decade):
    keys = ", ".join(sweep_data.key_names(kind, decade))
    inner = f"SELECT {keys}, count(*) AS c, sum(v) AS s FROM groups_{kind}_{order} GROUP BY {keys}"
    return f"SELECT count(*) AS n, sum(c) AS c, max(s) AS s FROM ({inner}) AS g"


def join_query(kind, order, decade):
    tables = f"groups_{kind}_{order} AS p JOIN build_{kind}_{order}_{decade} AS b ON p.k{decade} = b.k"
    return f"SELECT count(*) AS n, sum(p.v + b.w) AS s FROM {tables}"


def row_of(table):
    """The numbers of a result's one row, whatever their types."""
    return [int(value) for value in table.to_pylist()[0].values()]


class Sweep:
    """One kind of query over all families."""

    def __init__(self, name, query, first_decade, read_rows, families):
        self.name = name
        self.query = query
        self.first_decade = first_decade
        # Rows that a step reads, as a function of its decade.
        self.read_rows = read_rows
        self.families = families
        # family → engine → [(decade, seconds)]
        self.times = {}
        self.different = []
        self.not_fused = []

    def run_family(self, family, engines, decades, repetitions):
        times = self.times.setdefault(family, {name: [] for name in engines})
        for decade in range(self.first_decade, sweep_data.decades_of(family[0], decades) + 1):
            sql = self.query(*family, decade)
            plan = " ".join(engines["fused"].run(f"EXPLAIN {sql}").column("plan").to_pylist())
            if "FragmentExec" not in plan or "UnfusedExec" in plan:
                self.not_fused.append(sql)
            answers = {name: row_of(engine.run(sql)) for name, engine in engines.items()}
            if len(set(map(tuple, answers.values()))) > 1:
                self.different.append(f"{sql}: {answers}")
            samples = {name: [] for name in engines}
            for repetition in range(repetitions):
                order = list(engines)
                random.Random(repetition).shuffle(order)
                for name in order:
                    begin = time.perf_counter()
                    engines[name].run(sql)
                    samples[name].append(time.perf_counter() - begin)
            for name in engines:
                times[name].append((decade, median(samples[name])))
            line = "  ".join(f"{name} {median(values) * 1000:8.1f}" for name, values in samples.items())
            print(f"# {self.name} {' '.join(family)} 1e{decade} ms: {line}", flush=True)

    def report(self, figures):
        largest, places, ratios, per_row = {}, {}, [], 0.0
        for family, by_engine in self.times.items():
            for engine, points in by_engine.items():
                for decade, seconds in points:
                    ns = seconds * 1e9 / self.read_rows(decade)
                    figures.add(f"{self.name}_{'_'.join(family)}_1e{decade}_{engine}_ns_per_row", round(ns, 3), "ns")
                for (_, before), (decade, after) in zip(points, points[1:]):
                    if after / before > largest.get(engine, 0):
                        largest[engine], places[engine] = after / before, f"{' '.join(family)} to 1e{decade}"
            for (_, before), (decade, after) in zip(by_engine["fused"], by_engine["fused"][1:]):
                per_row = max(per_row, after / before * self.read_rows(decade - 1) / self.read_rows(decade))
            pairs = zip(by_engine["fused"], by_engine["duckdb"])
            ratios += [ours / theirs for (_, ours), (_, theirs) in pairs]
        figures.add(f"{self.name}_largest_step", round(largest["fused"], 2), "×", at_most=STEP_MAX)
        # A build side of as many rows as the probe side doubles what is read.
        figures.add(f"{self.name}_largest_step_per_row_read", round(per_row, 2), "×")
        for engine, step in largest.items():
            print(f"# {self.name}: largest step of {engine} is {step:.2f} × ({places[engine]})")
            if engine != "fused":
                figures.add(f"{self.name}_largest_step_{engine}", round(step, 2), "×")
        figures.add(f"{self.name}_geomean_fused_to_duckdb", round(geomean(ratios), 3), "×")
        figures.add(f"{self.name}_slowest_fused_to_duckdb", round(max(ratios), 3), "×")
        for text in [*self.different, *(f"not fused: {sql}" for sql in self.not_fused)]:
            print(f"# {text}")
        figures.add(f"{self.name}_results_that_differ", len(self.different), "", at_most=0)
        figures.add(f"{self.name}_queries_not_fused", len(self.not_fused), "", at_most=0)

    def panels(self):
        def line(points):
            return [(10**decade, seconds * 1e9 / self.read_rows(decade)) for decade, seconds in points]

        return [
            (f"{self.name}: {kind} keys, {order}", {name: line(points) for name, points in by_engine.items()})
            for (kind, order), by_engine in self.times.items()
        ]


def bench_sweeps(figures, data, wanted, decades, repetitions, cores):
    sweeps = []
    rows = 10**decades
    if "groups" in wanted:
        sweeps.append(Sweep("groupby", group_query, 0, lambda _: rows, sweep_data.families()))
    if "joins" in wanted:
        joined = [family for family in sweep_data.families() if family[0] in sweep_data.JOINED]
        sweeps.append(Sweep("join", join_query, 1, lambda decade: rows + 10**decade, joined))
    totals = {"fallbacks": 0, "evictions": 0}
    for kind, order in sweep_data.families():
        mine = [sweep for sweep in sweeps if (kind, order) in sweep.families]
        if not mine:
            continue
        tables = [f"groups_{kind}_{order}"]
        if any(sweep.name == "join" for sweep in mine):
            tables += [f"build_{kind}_{order}_{decade}" for decade in range(1, decades + 1)]
        with contextlib.ExitStack() as stack:
            # A server for each family: its columns alone are resident.
            server = stack.enter_context(Server(data))
            engines = {
                "fused": Trireme(server, "fused"),
                "datafusion": Trireme(server, "datafusion"),
                "duckdb": DuckDb(data, tables, cores),
            }
            for sweep in mine:
                sweep.run_family((kind, order), engines, decades, repetitions)
            for engine in engines.values():
                engine.close()
            counted = counters(server)
            totals["fallbacks"] += counted["trireme_fragment_fallbacks_total"]
            totals["evictions"] += counted["trireme_column_cache_evictions_total"]
    for sweep in sweeps:
        sweep.report(figures)
    if sweeps:
        random_access_steps(figures, decades, repetitions)
        # Of all runs: what fell back was not measured as fused, and what was evicted was not resident.
        figures.add("sweeps_fallbacks", totals["fallbacks"], "", at_most=0)
        figures.add("sweeps_columns_evicted", totals["evictions"], "", at_most=0)
    return [panel for sweep in sweeps for panel in sweep.panels()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--decades", type=int, default=7)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--only", default="groups,joins,planning,memory")
    parser.add_argument("--quick", action="store_true", help="few rows, nothing written: to see that it works")
    arguments = parser.parse_args()
    decades = 5 if arguments.quick else arguments.decades
    repetitions = 2 if arguments.quick else arguments.repetitions
    wanted = arguments.only.split(",")
    cores = len(os.sched_getaffinity(0))
    data = (arguments.data or pathlib.Path(tempfile.gettempdir()) / f"trireme-bench-sweeps-1e{decades}").resolve()
    settings = {
        "profile": pathlib.Path(server_binary()).parent.name,
        "rows": 10**decades,
        "repetitions": repetitions,
        "only": wanted,
        "cores": cores,
        "duckdb": duckdb.__version__,
    }
    figures = Figures("sweeps", settings)
    if {"groups", "joins", "memory"} & set(wanted):
        print(f"# data: {data.name}", flush=True)
        sweep_data.make(data, decades)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="trireme-sweeps-"))
    try:
        panels = bench_sweeps(figures, data, wanted, decades, repetitions, cores)
        if "planning" in wanted:
            bench_planning(figures, scratch, 10 if arguments.quick else 200)
        if "memory" in wanted:
            bench_memory(figures, data, decades)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not arguments.quick:
        path = figures.write()
        if panels:
            plot = path.with_suffix(".svg")
            title = f"{10**decades} rows, {cores} cores, columns resident"
            svg.write_grid(plot, title, panels, "distinct keys", "ns per row read")
            print(f"written to {plot.name}")
    print(f"{len(figures.rows)} figures, {figures.short()} short")
    return 0


if __name__ == "__main__":
    sys.exit(main())
