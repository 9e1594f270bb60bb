#!/usr/bin/env python3
"""Running queries that are steered or shared: right rows and bounded slow-down when estimates are wrong, a device is lost, or is busy.

    bench_resteer.py [--device opencl0] [--scale 0.1] [--repetitions 5] [--queries 3,13,…] [--shared 1,3,…] [--serve KEY=VALUE] [--area resteer]

TPC-H over a device beside the processor; PoCL will do. Faults and mis-estimates are planted with `SET trireme.inject`. Each time is the median
of repetitions, compared with the same query undisturbed, and with the same disturbance under `trireme.resteer = false`, in one run. Under
`lost` the device takes all that it can and is lost after a part of the time that the undisturbed query took; elsewhere the cost model places. What
PoCL has begun can't be taken back and goes on, on the processor's cores: `to_both_beside` has that in its bound, as what a run on the processor
takes longer that begins when the device has done that part of another run of the query. A device with cores of its own has none of this.
Under `shared` processor and device run parts of one fragment wherever that is possible (`trireme.co_execution = always`), and the device is
lost or slow in the middle. PoCL has the processor's own cores, so that sharing with it gains nothing: only the loss is bounded here.
"""

import argparse
import contextlib
import math
import pathlib
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
from bench_devices import Client, differing, median  # noqa: E402
from figures import Figures  # noqa: E402
from tpch_literals import with_literals  # noqa: E402
from trireme import Server  # noqa: E402

FACTORS = [0.001, 0.1, 10, 1000]
PARTS = [0.1, 0.5, 0.9]
BUSY_MS = 300
SLOW = 10
# What wrong estimates, a busy device, a lost or slow one may cost, as a geometric mean and at most.
SLOW_DOWN = 1.25
SLOW_DOWN_MAX = 3.0
# With subqueries and groups over groups, so that something is left to be steered.
QUERIES = "2,3,9,13,15,17,18,20,21,22"
# With a scan into an aggregate that can be cut.
SHARED = "1,3,5,6,12,14"


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

    def sharing(self, inject=""):
        return [*self.settings("cost", True, inject), "SET trireme.co_execution = 'always'"]

    def check(self, label, sql, settings):
        """Rows are compared once."""
        if label not in self.wanted:
            self.wanted[label] = self.client.rows(self.host, sql)
        wrong = differing(self.wanted[label], self.client.rows(settings, sql))
        self.checked += 1
        self.equal += not wrong
        if wrong:
            print(f"# {label}: {wrong} rows differ under {settings[-1]}", flush=True)

    def ms(self, label, sql, *variants):
        """The median time under each of several settings, which take turns, so that what else runs on the machine meets all of them."""
        for settings in variants:
            self.check(label, sql, settings)
        once = [text for settings in variants for text in [*settings, sql]]
        times = self.client.times_ms([], once * self.repetitions)
        medians, at = [], 0
        for settings in variants:
            at += len(settings) + 1
            medians.append(median(times[at - 1::len(once)]))
        return medians

    def rest_ms(self, uri, sql, later_ms):
        """What runs on the processor take longer when one on the device has begun so much before; medians."""
        with contextlib.ExitStack() as stack:

            def session(settings):
                connection = stack.enter_context(contextlib.closing(dbapi.connect(uri, autocommit=True)))
                cursor = stack.enter_context(contextlib.closing(connection.cursor()))

                def run(text):
                    cursor.execute(text)
                    cursor.fetchall()

                for text in settings:
                    run(text)
                return run

            device, host, times = session(self.settings("rule")), session(self.host), ([], [])
            for number in range(2 * self.repetitions):
                other = threading.Thread(target=device, args=(sql,))
                if number % 2:
                    other.start()
                    time.sleep(later_ms / 1e3)
                begin = time.perf_counter()
                host(sql)
                times[number % 2].append((time.perf_counter() - begin) * 1e3)
                if number % 2:
                    other.join()
        alone, beside = map(median, times)
        return max(beside - alone, 0.0)

    def warm(self, label, sql):
        """Kernels are compiled and columns resident; the time on the processor alone, and fragments of the graph."""
        for _ in range(2):
            self.client.rows([*self.placed, "SET trireme.device_mode = 'require'"], sql)
        self.check(label, sql, self.host)

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


def worst(name, ratios, labels):
    """Which case is the worst, for whoever mends it."""
    ratio, label = max(zip(ratios, labels))
    print(f"# {name}: the worst is {label}, {ratio:.2f} ×", flush=True)


def tell(figures, name, disturbed, calm, without, labels, bounded=False):
    """Ratios of a kind of disturbance: slow-down, its worst, and what steering changes."""
    slow = [on / off for on, off in zip(disturbed, calm)]
    gains = [on / off for on, off in zip(disturbed, without)]
    figures.add(f"{name}_cases", len(slow), "")
    if not slow:
        return
    worst(name, slow, labels)
    figures.add(f"{name}_slow_down", geomean(slow), "×", at_most=SLOW_DOWN if bounded else None)
    figures.add(f"{name}_slow_down_max", max(slow), "×", at_most=SLOW_DOWN_MAX if bounded else None)
    figures.add(f"{name}_to_without", geomean(gains), "×", at_most=1.05)
    figures.add(f"{name}_to_without_max", max(gains), "×")


def planted(bench, queries, counts, figures):
    """Rows of a fragment are expected to be a part, or many times, of what they are."""
    for factor in FACTORS:
        before, on, off, still, labels = bench.moves(), [], [], [], []
        for label, sql in queries:
            for fragment in sorted({counts[label] // 2, counts[label] - 2} & set(range(counts[label]))):
                inject = f"rows@fragment{fragment}:{factor:g}"
                variants = [bench.settings("cost", True, inject), bench.settings("cost", False, inject), bench.settings("cost")]
                steered, unsteered, calm = bench.ms(label, sql, *variants)
                on.append(steered)
                off.append(unsteered)
                still.append(calm)
                labels.append(f"{label} {inject} ({steered:.0f} ms, {unsteered:.0f} unsteered, {calm:.0f} undisturbed)")
        name = f"estimate_{factor:g}".replace(".", "_")
        tell(figures, name, on, still, off, labels, bounded=True)
        figures.add(f"{name}_moves", bench.moves() - before, "")


def to_both(figures, name, disturbed, bound, labels):
    """Against the time until the device was lost and all of it on the processor."""
    ratios = [ms / most for ms, most in zip(disturbed, bound)]
    worst(name, ratios, [f"{label} ({ms:.1f} ms, bound {most:.1f})" for label, ms, most in zip(labels, disturbed, bound)])
    figures.add(name, geomean(ratios), "×", at_most=1.2)
    figures.add(f"{name}_max", max(ratios), "×", at_most=SLOW_DOWN_MAX)


def lost(bench, queries, device, figures, uri):
    """The device takes all, and is lost in the middle. The bound is the time until then and all of it on the processor."""
    calm = {label: bench.ms(label, sql, bench.settings("rule"))[0] for label, sql in queries}
    for part in PARTS:
        on, off, still, bound, beside = [], [], [], [], []
        for label, sql in queries:
            inject = f"lost@{device}:{max(calm[label] * part, 0.1):.2f}ms"
            variants = [bench.settings("rule", True, inject), bench.settings("rule", False, inject), bench.settings("rule"), bench.host]
            steered, unsteered, undisturbed, host = bench.ms(label, sql, *variants)
            on.append(steered)
            off.append(unsteered)
            still.append(undisturbed)
            bound.append(undisturbed * part + host)
            beside.append(bound[-1] + bench.rest_ms(uri, sql, undisturbed * part))
        name = f"lost_at_{part * 100:.0f}_percent"
        tell(figures, name, on, still, off, [label for label, _ in queries])
        to_both(figures, f"{name}_to_both", on, bound, [label for label, _ in queries])
        to_both(figures, f"{name}_to_both_beside", on, beside, [label for label, _ in queries])


def busy(bench, queries, device, figures):
    """Others have the device: waiting, or leaving it."""
    inject = f"busy@{device}:{BUSY_MS}"
    variants = [bench.settings("cost", True, inject), bench.settings("cost", False, inject), bench.settings("cost"), bench.host]
    before = bench.moves()
    on, off, still, host = zip(*(bench.ms(label, sql, *variants) for label, sql in queries))
    tell(figures, "busy", on, still, off, [label for label, _ in queries])
    ratios = [ms / alone for ms, alone in zip(on, host)]
    figures.add("busy_to_processor", geomean(ratios), "×", at_most=SLOW_DOWN)
    figures.add("busy_to_processor_max", max(ratios), "×", at_most=SLOW_DOWN_MAX)
    figures.add("busy_moves", bench.moves() - before, "")


def last_shared(client):
    """The latest run of a graph in which a device ran rows of the processor's fragment."""
    (run,), = client.rows([], "SELECT coalesce(max(run), -1) FROM system.fragments WHERE shared_rows > 0")
    return int(run)


def shared(bench, queries, device, figures):
    """Processor and device run parts of a fragment; the device is lost, or slow, in the middle."""
    used = []
    for label, sql in queries:
        # The kernels of parts are compiled in the background.
        for _ in range(20):
            before = last_shared(bench.client)
            bench.client.rows(bench.sharing(), sql)
            if last_shared(bench.client) > before:
                used.append((label, sql))
                break
            time.sleep(0.25)
    figures.add("shared_queries", len(used), f"of {len(queries)}", at_least=len(queries))
    if not used:
        return
    both = {label: bench.ms(label, sql, bench.sharing(), bench.host) for label, sql in used}
    figures.add("shared_to_processor", geomean([together / host for together, host in both.values()]), "× (a device of the same cores)")
    for part in PARTS:
        on, bound = [], []
        for label, sql in used:
            inject = f"lost@{device}:{max(both[label][0] * part, 0.1):.2f}ms"
            disturbed, together, host = bench.ms(label, sql, bench.sharing(inject), bench.sharing(), bench.host)
            on.append(disturbed)
            bound.append(together * part + host)
        to_both(figures, f"shared_lost_at_{part * 100:.0f}_percent_to_both", on, bound, [label for label, _ in used])
    slow = [bench.ms(label, sql, bench.sharing(f"slow@{device}:{SLOW}"), bench.sharing()) for label, sql in used]
    ratios = [disturbed / calm for disturbed, calm in slow]
    worst(f"shared_slow_{SLOW}", ratios, [label for label, _ in used])
    figures.add(f"shared_slow_{SLOW}_slow_down", geomean(ratios), "×")
    figures.add(f"shared_slow_{SLOW}_slow_down_max", max(ratios), "×", at_most=float(SLOW))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="opencl0")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--queries", default=QUERIES)
    parser.add_argument("--shared", default=SHARED)
    parser.add_argument("--serve", action="append", default=[], help="a further setting of the server: KEY=VALUE")
    parser.add_argument("--area", default="resteer", help="name of the file in benchmarks/results")
    args = parser.parse_args()
    import workloads

    begin = time.monotonic()
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
        lost(bench, queries, args.device, figures, server.uri)
        busy(bench, queries, args.device, figures)
        parts = [(f"q{number:02}", with_literals(number, 0, args.scale)) for number in map(int, args.shared.split(","))]
        shared(bench, parts, args.device, figures)
        figures.add("rows_right", bench.equal, f"of {bench.checked}", at_least=bench.checked)
    figures.add("elapsed_s", time.monotonic() - begin, "s", at_most=480)
    print(f"{figures.short()} short")
    figures.write()
    return int(bench.equal < bench.checked)


if __name__ == "__main__":
    sys.exit(main())
