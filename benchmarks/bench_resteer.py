#!/usr/bin/env python3
"""Running queries that are steered: right rows and bounded slow-down when estimates are wrong, a device is lost, or is busy.

    bench_resteer.py [--device opencl0] [--scale 0.1] [--repetitions 3] [--queries 3,13,…] [--serve KEY=VALUE] [--area resteer]

TPC-H over a device beside the processor; PoCL will do. Faults and mis-estimates are planted with `SET trireme.inject`. Each time is the median
of repetitions, compared with the same query undisturbed, and with the same disturbance under `trireme.resteer = false`, in one run. Under
`lost` the device takes all that it can and is lost after a part of the time that the undisturbed query took; elsewhere the cost model places.
"""

import argparse
import math
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

from bench_devices import Client, differing, median  # noqa: E402
from figures import Figures  # noqa: E402
from tpch_literals import with_literals  # noqa: E402
from trireme import Server  # noqa: E402

FACTORS = [0.001, 0.1, 10, 1000]
PARTS = [0.1, 0.5, 0.9]
BUSY_MS = 300
# With subqueries and groups over groups, so that something is left to be steered.
QUERIES = "2,3,9,13,15,17,18,20,21,22"


class Bench:
    """One server's queries under settings, with right rows to compare with."""

    def __init__(self, client, device, repetitions):
        self.client = client
        self.repetitions = repetitions
        self.host = ["SET trireme.cpu_variant = 'fused'", "SET trireme.plan_cache = false", "SET trireme.devices = 'cpu0'"]
        self.placed = [*self.host[:2], f"SET trireme.devices = '{device}'"]
        self.wanted = {}
        self.checked = self.equal = 0

    def settings(self, placement, resteer=True, inject=""):
        switch = "true" if resteer else "false"
        return [*self.placed, f"SET trireme.placement = '{placement}'", f"SET trireme.resteer = {switch}", f"SET trireme.inject = '{inject}'"]

    def ms(self, label, sql, settings):
        """The median time; rows are compared once."""
        if label not in self.wanted:
            self.wanted[label] = self.client.rows(self.host, sql)
        wrong = differing(self.wanted[label], self.client.rows(settings, sql))
        self.checked += 1
        self.equal += not wrong
        if wrong:
            print(f"# {label}: {wrong} rows differ under {settings[-1]}", flush=True)
        return median(self.client.times_ms(settings, [sql] * self.repetitions))

    def warm(self, label, sql):
        """Kernels are compiled and columns resident; the time on the processor alone, and fragments of the graph."""
        for _ in range(2):
            self.client.rows([*self.placed, "SET trireme.device_mode = 'require'"], sql)
        return self.ms(label, sql, self.host)

    def moves(self):
        (count,), = self.client.rows([], "SELECT count(*) FROM system.resteers WHERE moved")
        return int(count)


def geomean(values):
    return math.exp(sum(math.log(value) for value in values) / len(values)) if values else float("nan")


def fragments(client):
    """How many the last query's largest graph had."""
    sql = "SELECT max(fragment) + 1 FROM system.fragments WHERE run > (SELECT max(run) FROM system.fragments) - 3"
    (count,), = client.rows([], sql)
    return int(count or 1)


def tell(figures, name, disturbed, calm, without):
    """Ratios of a kind of disturbance: slow-down, its worst, and what steering changes."""
    slow = [on / off for on, off in zip(disturbed, calm)]
    gains = [on / off for on, off in zip(disturbed, without)]
    figures.add(f"{name}_cases", len(slow), "")
    if not slow:
        return
    figures.add(f"{name}_slow_down", geomean(slow), "×")
    figures.add(f"{name}_slow_down_max", max(slow), "×")
    figures.add(f"{name}_to_without", geomean(gains), "×", at_most=1.05)
    figures.add(f"{name}_to_without_max", max(gains), "×")


def planted(bench, queries, counts, figures):
    """Rows of a fragment are expected to be a part, or many times, of what they are."""
    calm = {label: bench.ms(label, sql, bench.settings("cost")) for label, sql in queries}
    for factor in FACTORS:
        before, on, off, still = bench.moves(), [], [], []
        for label, sql in queries:
            for fragment in sorted({0, counts[label] // 2, counts[label] - 2} & set(range(counts[label]))):
                inject = f"rows@fragment{fragment}:{factor:g}"
                on.append(bench.ms(label, sql, bench.settings("cost", True, inject)))
                off.append(bench.ms(label, sql, bench.settings("cost", False, inject)))
                still.append(calm[label])
        name = f"estimate_{factor:g}".replace(".", "_")
        tell(figures, name, on, still, off)
        figures.add(f"{name}_moves", bench.moves() - before, "")


def lost(bench, queries, device, figures):
    """The device takes all, and is lost in the middle. The bound is the time until then and all of it on the processor."""
    calm = {label: bench.ms(label, sql, bench.settings("rule")) for label, sql in queries}
    host = {label: bench.ms(label, sql, bench.host) for label, sql in queries}
    for part in PARTS:
        on, off, still, bound = [], [], [], []
        for label, sql in queries:
            inject = f"lost@{device}:{max(calm[label] * part, 0.1):.2f}ms"
            on.append(bench.ms(label, sql, bench.settings("rule", True, inject)))
            off.append(bench.ms(label, sql, bench.settings("rule", False, inject)))
            still.append(calm[label])
            bound.append(calm[label] * part + host[label])
        name = f"lost_at_{part * 100:.0f}_percent"
        tell(figures, name, on, still, off)
        figures.add(f"{name}_to_both", geomean([ms / most for ms, most in zip(on, bound)]), "×", at_most=1.2)


def busy(bench, queries, device, figures):
    """Others have the device: waiting, or leaving it."""
    on, off, still = [], [], []
    before = bench.moves()
    for label, sql in queries:
        calm = bench.ms(label, sql, bench.settings("cost"))
        inject = f"busy@{device}:{BUSY_MS}"
        on.append(bench.ms(label, sql, bench.settings("cost", True, inject)))
        off.append(bench.ms(label, sql, bench.settings("cost", False, inject)))
        still.append(calm)
    tell(figures, "busy", on, still, off)
    figures.add("busy_moves", bench.moves() - before, "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="opencl0")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--queries", default=QUERIES)
    parser.add_argument("--serve", action="append", default=[], help="a further setting of the server: KEY=VALUE")
    parser.add_argument("--area", default="resteer", help="name of the file in benchmarks/results")
    args = parser.parse_args()
    import workloads

    figures = Figures(args.area, vars(args))
    data = workloads.data("tpch", workloads.DATA, args.scale, 0)
    serve = ["devices.opencl=all", "devices.rows_min=0", "exec.allow_inject=true", "costs.learn=false", *args.serve]
    extra = [word for setting in serve for word in ("--set", setting)]
    with Server(data, extra) as server, tempfile.TemporaryDirectory() as folder:
        client = Client(server, folder)
        if not client.is_ready(args.device):
            print(f"there is no device {args.device}")
            return 0
        bench = Bench(client, args.device, args.repetitions)
        queries, counts = [], {}
        for number in map(int, args.queries.split(",")):
            label, sql = f"q{number:02}", with_literals(number, 0, args.scale)
            try:
                bench.warm(label, sql)
            except RuntimeError as error:
                print(f"# {label} is left out: {str(error)[:200]}", flush=True)
                continue
            counts[label] = fragments(client)
            queries.append((label, sql))
        planted(bench, queries, counts, figures)
        lost(bench, queries, args.device, figures)
        busy(bench, queries, args.device, figures)
        figures.add("rows_right", bench.equal, f"of {bench.checked}", at_least=bench.checked)
    print(f"{figures.short()} short")
    figures.write()
    return int(bench.equal < bench.checked)


if __name__ == "__main__":
    sys.exit(main())
