"""Placement on the devices that are there: every option of every query in one run, its regret, and the errors of predicted times.

    options   cost        as the cost model places it
              fused       all on the processor, fused pipelines
              datafusion  all on the processor, DataFusion's operators
              device      all on the device that it supports (device_mode = require)
              flip …      as the cost model placed it, with one fragment (and what it joins with) on the other device
    resident  columns are in the host's memory (and on the device, as far as it keeps them): the least time of some runs, by turns
    cold      the column cache is off, that in the device's memory too: every run reads and decodes the files; kernels are compiled

Runs that were placed alike are one option: their times are pooled.
"""

import contextlib
import json
import math
import pathlib
import re
import statistics
import time

import adbc_driver_flightsql.dbapi as dbapi
import duckdb
import kmeans
import workloads
from trireme import Server

# Fragments that take less are all overhead: no formula is judged by them alone.
FRAGMENT_MS_MIN = 0.03
# Options differ when one is this much slower than another.
DIFFERS = 1.1
# What a rule by rows would put on the device.
MANY_ROWS = 1_000_000
RUNS = """SELECT run, fragment, device, variant, text, coalesce(input_rows, 0), total_ms, own_ms, predicted_ms, corrected_ms, expected_ms, tier
FROM system.fragments WHERE run > {after} ORDER BY run, fragment"""
NAMES = ("run", "fragment", "device", "variant", "text", "rows", "total_ms", "own_ms", "predicted_ms", "corrected_ms", "expected_ms", "tier")
# A device whose kernels are not compiled after so long is judged as it is.
COMPILED_S = 5


# Rows of workloads that have no scale, by that of the others.
ROWS = {0.01: 20_000, 0.1: 200_000, 1.0: 1_000_000}


def expressions(clusters):
    """Long expressions over points: what compiled kernels are good at, also on a processor."""
    return kmeans.step([(at / clusters, (at * 7 % clusters) / clusters) for at in range(clusters)])


def queries_of(name):
    if name == "expressions":
        return [(f"kmeans{clusters}", expressions(clusters)) for clusters in (2, 4, 6, 8, 12, 16)]
    return workloads.queries(name)


def data_of(name, scale):
    if name != "expressions":
        return workloads.data(name, workloads.DATA, scale, ROWS.get(scale, 20_000))
    folder = pathlib.Path(workloads.DATA) / f"points-{scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "points.parquet"
    if not out.exists():
        rows = round(6e6 * scale)
        made = f"SELECT (i * 7919 % 1000003) / 1000003.0 AS x, (i * 104729 % 999983) / 999983.0 AS y FROM range({rows}) AS r(i)"
        duckdb.connect().execute(f"COPY ({made.replace('.0 AS', '::DOUBLE AS')}) TO '{out}' (FORMAT parquet)")
    return folder


class Client:
    """A session whose settings are sent when they change, and another one that only looks at system tables, without fragments of its own."""

    def __init__(self, server, stack):
        def cursor():
            connection = stack.enter_context(contextlib.closing(dbapi.connect(server.uri, autocommit=True)))
            return stack.enter_context(contextlib.closing(connection.cursor()))

        self.cursor, self.looks = cursor(), cursor()
        self.looks.execute("SET trireme.cpu_variant = 'datafusion'")
        self.settings = {}

    def rows(self, sql):
        self.looks.execute(sql)
        return self.looks.fetchall()

    def use(self, settings):
        for name, value in settings.items():
            if self.settings.get(name) != value:
                self.cursor.execute(f"SET trireme.{name} = '{value}'")
                self.settings[name] = value

    def ms(self, sql):
        begin = time.perf_counter()
        self.cursor.execute(sql)
        self.cursor.fetch_arrow_table()
        return (time.perf_counter() - begin) * 1000

    def latest(self):
        return self.rows("SELECT coalesce(max(run), -1) FROM system.fragments")[0][0]

    def runs(self, after):
        return [dict(zip(NAMES, row)) for row in self.rows(RUNS.format(after=after))]


def options_of(device):
    """Settings by option. `device_mode = off` would leave fused pipelines out too: the processor's are those that may use no device."""
    return {
        "device": {"cpu_variant": "fused", "device_mode": "require", "devices": device, "pinned": ""},
        "cost": {"cpu_variant": "auto", "device_mode": "auto", "devices": device, "pinned": ""},
        "fused": {"cpu_variant": "fused", "device_mode": "auto", "devices": "cpu0", "pinned": ""},
        "datafusion": {"cpu_variant": "datafusion", "device_mode": "off", "devices": "cpu0", "pinned": ""},
    }


def placement(runs):
    """Where the fragments of a statement ran: by graph (a number of its own) and fragment; nothing of DataFusion's operators."""
    return tuple((part["run"] - runs[0]["run"], part["fragment"], part["device"]) for part in runs)


def groups(runs):
    """Fragments that must be on one device: a probe and its build side."""
    of = {part["fragment"]: part["fragment"] for part in runs}

    def root(at):
        while of[at] != at:
            at = of[at]
        return at

    for part in runs:
        for build in map(int, re.findall(r"probe (\d+)", part["text"])):
            if build in of:
                of[root(build)] = root(part["fragment"])
    found = {}
    for part in runs:
        found.setdefault(root(part["fragment"]), []).append(part["fragment"])
    return list(found.values())


def flips(runs, device):
    """The settings of every single flip; none of a statement of several graphs, whose numbers no table tells."""
    if not runs or len({part["run"] for part in runs}) != 1:
        return []
    chosen = {part["fragment"]: part["device"] for part in runs}
    found = []
    for group in groups(runs):
        other = "cpu0" if chosen[group[0]] != "cpu0" else device
        pins = {str(at): other if at in group else where for at, where in chosen.items()}
        found.append((f"flip {group}", json.dumps(pins)))
    return found


class Case:
    """The options of one query, run by turns. Runs that were placed alike are one option: the least of all their times is its time."""

    def __init__(self, client, device, sql):
        self.client, self.sql = client, sql
        self.options = options_of(device)
        self.device = device
        self.times, self.where, self.rows_max, self.refused = {}, {}, 0, set()
        self.counted = set()

    def once(self, name, counts=True):
        after = self.client.latest()
        self.client.use(self.options[name])
        ms = self.client.ms(self.sql)
        parts = self.client.runs(after)
        key = placement(parts)
        if counts:
            self.times.setdefault(key, []).append(ms)
            self.counted.update(part["run"] for part in parts)
        self.rows_max = max([self.rows_max, *(part["rows"] for part in parts)])
        self.where[name] = key
        return parts

    def warm(self):
        """Columns are loaded and kernels compiled: until then a device runs fragments as data, and costs leave it out."""
        end = time.monotonic() + COMPILED_S
        while any(part["tier"] == "interpreted" for part in self.once("device", counts=False)) and time.monotonic() < end:
            time.sleep(0.05)
        for name in self.options:
            self.once(name, counts=False)

    def with_flips(self, most):
        for name, pinned in flips(self.once("cost"), self.device)[:most]:
            self.options[name] = {**self.options["cost"], "pinned": pinned}

    def run(self, repetitions, seconds):
        """At least twice all options by turns, then until there are enough repetitions or the time is over."""
        end = time.monotonic() + seconds
        for repetition in range(repetitions):
            if repetition >= 2 and time.monotonic() > end:
                break
            for name in [name for name in self.options if name not in self.refused]:
                try:
                    self.once(name)
                except dbapi.Error:
                    self.refused.add(name)

    def found(self):
        by = {name: min(self.times[key]) for name, key in self.where.items() if key in self.times}
        flipped = sum(name.startswith("flip") for name in self.options)
        return {"times": by, "chosen": by["cost"], "best": min(by.values()), "rows": self.rows_max, "flips": flipped, "counted": self.counted}


def error(one, other):
    return max(one / other, other / one)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def geomean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def regret_figures(figures, name, cases):
    chosen, best = sum(each["chosen"] for each in cases), sum(each["best"] for each in cases)
    ratios = [each["chosen"] / each["best"] for each in cases]
    figures.add(f"real_{name}_cases", len(cases), "")
    figures.add(f"real_{name}_regret_summed", (chosen / best - 1) * 100, "%", at_most=5)
    figures.add(f"real_{name}_regret_geomean", geomean(ratios), "×", at_most=1.03)
    figures.add(f"real_{name}_regret_p95", (percentile(ratios, 0.95) - 1) * 100, "%", at_most=25)
    beyond = [ratio if each["chosen"] - each["best"] > 1 else 1.0 for ratio, each in zip(ratios, cases)]
    figures.add(f"real_{name}_regret_p95_beyond_1ms", (percentile(beyond, 0.95) - 1) * 100, "%")
    differ = [each for each in cases if error(each["times"]["fused"], each["times"]["device"]) > DIFFERS]
    right = [each for each in differ if each["chosen"] <= DIFFERS * min(each["times"]["fused"], each["times"]["device"])]
    if differ:
        figures.add(f"real_{name}_right_device", 100 * len(right) / len(differ), "%", at_least=90)
    harmed = [each for each in cases if each["chosen"] > min(each["times"]["fused"], each["times"]["datafusion"]) * 1.1 + 2]
    figures.add(f"real_{name}_slower_than_all_processor", len(harmed), "cases", at_most=0)
    favour = sum(each["times"]["device"] < each["times"]["fused"] for each in cases)
    figures.add(f"real_{name}_cases_that_favour_the_device", 100 * favour / len(cases), "%")
    for rule, of in (
        ("fused", lambda each: each["times"]["fused"]),
        ("datafusion", lambda each: each["times"]["datafusion"]),
        ("device", lambda each: each["times"]["device"]),
        ("device_above_1M_rows", lambda each: each["times"]["device" if each["rows"] > MANY_ROWS else "fused"]),
    ):
        figures.add(f"real_{name}_regret_always_{rule}", (sum(map(of, cases)) / best - 1) * 100, "%")
    lost = sorted(cases, key=lambda each: each["chosen"] - each["best"], reverse=True)
    for each in lost[:5] + [each for each in lost[5:] if each in harmed]:
        print(f"# {name} {each['label']}: chosen {each['chosen']:.2f} ms, " + ", ".join(f"{key} {ms:.2f}" for key, ms in each["times"].items()))


def scale_figures(figures, name, cases):
    """The same by size of the data, in few lines."""
    for scale in sorted({each["scale"] for each in cases}):
        found = [each for each in cases if each["scale"] == scale]
        label = f"real_{name}_sf{scale:g}"
        ratios = [each["chosen"] / each["best"] for each in found]
        best = sum(each["best"] for each in found)
        figures.add(f"{label}_cases", len(found), "")
        figures.add(f"{label}_regret_summed", (sum(each["chosen"] for each in found) / best - 1) * 100, "%", at_most=5)
        figures.add(f"{label}_regret_geomean", geomean(ratios), "×", at_most=1.03)
        figures.add(f"{label}_regret_p95", (percentile(ratios, 0.95) - 1) * 100, "%", at_most=25)


def prediction_figures(figures, parts):
    """q-errors of fragments over resident columns; `parts` has the label of each run's query."""
    parts = [part for part in parts if part["own_ms"] is not None and part["own_ms"] >= FRAGMENT_MS_MIN]
    for device in sorted({part["device"] for part in parts}):
        judged = {}
        for part in (part for part in parts if part["device"] == device):
            judged.setdefault((part["label"], part["fragment"], part["text"]), []).append(part)
        # The least time of each fragment is what it takes; the others are the machine's other work.
        least = [min(runs, key=lambda part: part["own_ms"]) for runs in judged.values() if len(runs) > 1]
        for name, ms_min in (("all_fragments", FRAGMENT_MS_MIN), ("fragments_above_1ms", 1.0)):
            for kind, column, targets in (
                ("formulas", "predicted_ms", (1.5, 3)),
                ("learned", "corrected_ms", (1.25, 2)),
                ("estimated_rows", "expected_ms", (1.6, 5)),
            ):
                errors = [error(part[column], part["own_ms"]) for part in least if part["own_ms"] >= ms_min and part[column]]
                if len(errors) < 5:
                    continue
                where = "processor" if device == "cpu0" else device
                figures.add(f"real_q_error_{where}_{name}_{kind}_median", percentile(errors, 0.5), "×", at_most=targets[0])
                figures.add(f"real_q_error_{where}_{name}_{kind}_p95", percentile(errors, 0.95), "×", at_most=targets[1])
        worst = sorted(least, key=lambda part: error(part["predicted_ms"], part["own_ms"]), reverse=True)[:6]
        for part in worst:
            print(f"# {device} {part['label']}/{part['fragment']}: {part['own_ms']:.3f} ms, predicted {part['predicted_ms']:.3f}: {part['text'][:110]}")


def learning_figures(figures, parts):
    """The error against the number of runs of a shape; every run is judged before it is learned from."""
    shapes = {}
    for part in parts:
        if part["own_ms"] is not None and part["own_ms"] >= FRAGMENT_MS_MIN:
            shapes.setdefault((part["label"], part["fragment"], part["text"], part["device"]), []).append(part)
    long = [runs for runs in shapes.values() if len(runs) >= 20]
    if not long:
        return
    mean = lambda at, column: statistics.fmean(abs(math.log(runs[at][column] / runs[at]["own_ms"])) for runs in long)
    curve = [(at + 1, mean(at, "corrected_ms")) for at in range(20)]
    print("# mean |ln error| by run: " + " ".join(f"{value:.3f}" for _, value in curve))
    first = statistics.fmean(value for _, value in curve[:3])
    last = statistics.fmean(value for _, value in curve[-3:])
    figures.add("real_error_falls_within_20_runs", (1 - last / first) * 100, "%", at_least=20)
    # First runs of shapes are held out: nothing was learned of them, but of others.
    held = [runs[0] for runs in shapes.values()]
    bare = statistics.fmean(abs(math.log(part["predicted_ms"] / part["own_ms"])) for part in held)
    learned = statistics.fmean(abs(math.log(part["corrected_ms"] / part["own_ms"])) for part in held)
    figures.add("real_error_of_new_shapes_learned_to_formulas", learned / bare, "×", at_most=1.0)


def ready(client, device, limit_s=60):
    """Whether the device is there and measured."""
    begin = time.monotonic()
    while time.monotonic() - begin < limit_s:
        rows = client.rows("SELECT device, state, rates FROM system.devices")
        found = {name: (state, rates) for name, state, rates in rows}
        if "others" not in found and (device not in found or found[device][1] == "measured"):
            return device in found and found[device][0] == "ready"
        time.sleep(0.2)
    return False


def serve(data, stack, kernels, extra):
    """A server over the same files in a folder of its own: another one may have theirs."""
    words = ["--set", "devices.opencl=all", "--set", f"devices.kernel_dir={kernels}", *extra]
    return stack.enter_context(Server(stack.enter_context(workloads.linked(data)), words))


def measure(args, figures):
    """All workloads at all sizes; the errors of predictions at the end."""
    kernels = pathlib.Path(workloads.DATA) / "kernels"
    scales = [float(text) for text in args.scales.split(",")]
    sets = [(name, scale) for scale in scales for name in args.workloads.split(",")]
    cases, parts, left_out = {"resident": [], "cold": []}, [], 0
    for at, (name, scale) in enumerate(sets):
        data = data_of(name, scale)
        # Larger data take longer, but no ten times as long.
        weights = [len(queries_of(name)) * scale**0.3 for name, scale in sets[at:]]
        share_s = (args.end - time.monotonic()) * weights[0] / sum(weights)
        states = (("resident", 0.7, []), ("cold", 0.3, ["--set", "exec.column_cache=false"]))
        states = [of for of in states if of[0] in args.states.split(",")]
        for state, part, extra in states:
            end = time.monotonic() + max(share_s * part / sum(part for _, part, _ in states), 5)
            with contextlib.ExitStack() as stack:
                client = Client(serve(data, stack, kernels, ["--set", f"costs.dir={args.profiles}", *extra]), stack)
                if not ready(client, args.device):
                    print(f"there is no device {args.device}; on its own the processor has nothing to choose")
                    return
                for query, sql in queries_of(name):
                    if time.monotonic() > end:
                        left_out += 1
                        continue
                    before = client.latest()
                    label = f"{name}-{scale:g}/{query}"
                    found = [each | {"scale": scale} for each in one(args, client, state == "resident", label, sql)]
                    cases[state].extend(found)
                    # What loaded columns or waited for kernels was not counted: only runs over resident columns are judged.
                    if state == "resident":
                        counted = {run for each in found for run in each["counted"]}
                        parts.extend(part | {"label": label} for part in client.runs(before) if part["run"] in counted)
        print(f"# {name}-{scale:g}: {len(cases['resident'])} resident, {len(cases['cold'])} cold cases so far", flush=True)
    for state, found in cases.items():
        if found:
            regret_figures(figures, state, found)
            scale_figures(figures, state, found)
    figures.add("real_cases_left_out_for_time", left_out, "")
    if cases["resident"]:
        prediction_figures(figures, parts)
        learning_figures(figures, learned(args, kernels))
    devices(args, kernels, figures)


def one(args, client, resident, label, sql):
    """A query's case, if it doesn't fail."""
    case = Case(client, args.device, sql)
    try:
        case.warm()
        if resident:
            case.with_flips(args.flips)
        case.run(args.repetitions if resident else args.repetitions - 1, args.case_s)
        return [case.found() | {"label": label}]
    except (dbapi.Error, KeyError) as failure:
        print(f"# {label} failed: {str(failure)[:160]}")
        client.settings.clear()
        return []


def learned(args, kernels):
    """Every query of TPC-H's smallest data 21 times on a server that has learned nothing."""
    data = workloads.data("tpch", workloads.DATA, 0.01, 0)
    parts = []
    with contextlib.ExitStack() as stack:
        fresh = stack.enter_context(fresh_costs(args.profiles))
        client = Client(serve(data, stack, kernels, ["--set", f"costs.dir={fresh}"]), stack)
        client.use(options_of(args.device)["fused"])
        queries = workloads.queries("tpch")
        end = time.monotonic() + args.learning_s
        for label, sql in queries:
            if time.monotonic() > end:
                break
            after = client.latest()
            for _ in range(22):
                client.ms(sql)
            time.sleep(0.05)
            parts.extend(part | {"label": label} for part in client.runs(after))
    return parts


@contextlib.contextmanager
def fresh_costs(profiles):
    """A folder with the profiles, without what was learned."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for file in pathlib.Path(profiles).glob("*.json"):
            if file.name != "models.json":
                shutil.copy(file, folder)
        yield folder


def devices(args, kernels, figures):
    """What was measured of the devices, as the server shows it."""
    columns = "device, rates, start_ms, scan_bytes_per_second, lookups_per_second, groups_per_second, active_watts, watts_from"
    with contextlib.ExitStack() as stack:
        data = workloads.data("tpch", workloads.DATA, 0.01, 0)
        client = Client(serve(data, stack, kernels, ["--set", f"costs.dir={args.profiles}"]), stack)
        ready(client, args.device)
        for row in client.rows(f"SELECT {columns} FROM system.devices WHERE rates IS NOT NULL"):
            values = dict(zip(columns.split(", "), row))
            name = values["device"]
            print(f"# {name}: rates {values['rates']}, watts {values['watts_from']}")
            figures.add(f"device_{name}_start", values["start_ms"], "ms")
            figures.add(f"device_{name}_scan", values["scan_bytes_per_second"] / 1e9, "GB/s")
            figures.add(f"device_{name}_lookups", values["lookups_per_second"] / 1e6, "M/s")
            figures.add(f"device_{name}_groups", values["groups_per_second"] / 1e6, "M/s")
