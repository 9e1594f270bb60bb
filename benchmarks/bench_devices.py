#!/usr/bin/env python3
"""A device beside the processor: that it runs what the processor's fused variant runs, rightly, with few launches and waits; and how long.

    bench_devices.py --device opencl0 [--workloads tpch,ssb,clickbench] [--scale 1] [--repetitions 3] [--verify] [--duckdb] [--area NAME]

Needs only the binaries and Python's own library (SSB's and ClickBench's data need DuckDB, where they aren't made yet), so that it runs on a
machine that is lent bare. Every query runs under `device_mode = require`: what the device claims it must do. Its rows are compared with the
processor's, at 1e-9 relative for numbers, as sets. Launches, waits and what stayed on the processor come from `system.fragments`. Hot times
are TPC-H's, with other literals at every repetition.
"""

import argparse
import csv
import io
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

from figures import Figures  # noqa: E402
from tpch_literals import with_literals  # noqa: E402
from trireme import Server, client_binary  # noqa: E402

# More rows are worth a device: the bound.
LARGE_ROWS = 10_000
# No statement of these takes as long, on any device: one that does waits for a kernel that never ends.
STATEMENT_LIMIT_S = 120.0
COLUMNS = "run, fragment, device, tier, launches, syncs, retries, compiled, compile_ms, input_rows, output_rows, kernel_ms, uploaded_bytes, text"


class Client:
    """Statements by trisql, one process for many."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = pathlib.Path(folder)

    def run(self, settings, statements, timing=False, limit_s=None):
        """What trisql printed, by its exit code and output."""
        script = self.folder / "script.sql"
        script.write_text("".join(f"{text};\n" for text in [*settings, *statements]))
        command = [client_binary(), self.server.uri, "-X", "-q", "--no-pager", "--format", "csv", "-f", str(script)]
        try:
            done = subprocess.run(command + (["--timing"] if timing else []), capture_output=True, text=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no answer in {limit_s:.0f} s") from None
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[:2000] or done.stdout[-2000:])
        return done.stdout, done.stderr

    def rows(self, settings, sql):
        """Rows under settings that print nothing."""
        output, _ = self.run(settings, [sql], limit_s=STATEMENT_LIMIT_S)
        return list(csv.reader(io.StringIO(output)))[1:]

    def is_ready(self, device, limit_s=30):
        """Whether a device takes work, once all drivers have started."""
        begin = time.monotonic()
        while True:
            states = dict(self.rows([], "SELECT device, state FROM system.devices"))
            if "starting" not in states.values() or time.monotonic() - begin > limit_s:
                return states.get(device) == "ready"
            time.sleep(0.1)

    def times_ms(self, settings, statements, limit_s=None):
        """The time of each statement, as the client sees it."""
        output, error = self.run(settings, statements, timing=True, limit_s=limit_s)
        found = [float(ms) for ms in re.findall(r"^Time: ([0-9.]+) ms", output + "\n" + error, flags=re.M)]
        return found[len(settings):]


def number(text):
    try:
        return float(text)
    except ValueError:
        return None


def same(one, other):
    if one == other:
        return True
    a, b = number(one), number(other)
    if a is None or b is None:
        return False
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def key(row):
    # Floats may differ in their last digits; all else is sorted as it is.
    return [f"{number(text):.6g}" if "." in text and number(text) is not None else text for text in row]


def differing(wanted, found):
    if len(wanted) != len(found):
        return abs(len(wanted) - len(found))
    pairs = zip(sorted(wanted, key=key), sorted(found, key=key))
    return sum(not all(map(same, one, other)) for one, other in pairs)


def compared(client, on_host, on_device, sql):
    """What is to be said of a query's rows; without its LIMIT where that may cut through equal keys."""
    wrong = differing(client.rows(on_host, sql), client.rows(on_device, sql))
    whole = re.sub(r"\blimit\s+\d+(\s+offset\s+\d+)?\s*$", "", sql.strip(), flags=re.I)
    if wrong and whole != sql.strip() and not differing(client.rows(on_host, whole), client.rows(on_device, whole)):
        return "equal but for ties"
    return f"{wrong} rows differ" if wrong else "equal"


class Served:
    """A server, and another where a device of it was lost."""

    def __init__(self, data, arguments, device, patience):
        self.start = lambda: Server(data, arguments, ready_limit_s=patience)
        self.device, self.patience = device, patience
        self.folder = tempfile.TemporaryDirectory()
        self.server = self.start()
        self.client = Client(self.server, self.folder.name)

    def is_ready(self, limit_s=None):
        return self.client.is_ready(self.device, self.patience if limit_s is None else limit_s)

    def mend(self):
        """After a failure: a device that was switched off stays off for the life of its server."""
        try:
            if self.is_ready(1.0):
                return
        except RuntimeError as error:
            print(f"# the server: {error}", flush=True)
        print(f"# {self.device} is off: another server", flush=True)
        self.server.kill()
        self.server = self.start()
        self.client = Client(self.server, self.folder.name)
        self.is_ready()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()
        self.folder.cleanup()


def latest_run(client, device):
    """The latest run that used the device; 0 if none did."""
    return int(client.rows([], f"SELECT coalesce(max(run), 0) FROM system.fragments WHERE device = '{device}'")[0][0])


def last_run(client, device, before):
    """The fragments of the latest run that used the device, which is to be after `before`."""
    latest = latest_run(client, device)
    if latest <= before:
        raise RuntimeError(f"no fragment of it ran on {device}")
    rows = client.rows([], f"SELECT {COLUMNS} FROM system.fragments WHERE run = {latest} ORDER BY fragment")
    return [dict(zip(COLUMNS.split(", "), row)) for row in rows]


def workload_queries(name):
    if name == "tpch":
        return [(f"q{number:02}", with_literals(number, 0)) for number in range(1, 23)]
    import workloads

    return workloads.queries(name)


def correctness(served, name, mode, tier, figures):
    """Runs a workload's queries once on both; prints a line each. The queries that ran."""
    device = served.device
    on_host = ["SET trireme.cpu_variant = 'fused'", "SET trireme.devices = 'cpu0'"]
    on_device = ["SET trireme.cpu_variant = 'fused'", f"SET trireme.devices = '{device}'", f"SET trireme.device_mode = '{mode}'"]
    equal, stayed, stayed_large, launches, syncs, passed, other_tier = 0, [], 0, 0, 0, [], 0
    queries = workload_queries(name)
    for label, sql in queries:
        try:
            before = latest_run(served.client, device)
            verdict = compared(served.client, on_host, on_device, sql)
            served.client.rows(on_device, sql)
            fragments = last_run(served.client, device, before)
        except RuntimeError as error:
            print(f"# {name} {label}: {error}", flush=True)
            served.mend()
            continue
        passed.append(label)
        here = [part for part in fragments if part["device"] != device]
        equal += verdict.startswith("equal")
        stayed += [f"{label}/{part['fragment']}" for part in here]
        stayed_large += sum(max(int(part["input_rows"] or 0), int(part["output_rows"] or 0)) > LARGE_ROWS for part in here)
        launches = max([launches, *(int(part["launches"]) for part in fragments)])
        waited = sum(int(part["syncs"]) for part in fragments)
        syncs = max(syncs, waited)
        tiers = sorted({part["tier"] for part in fragments if part["tier"]})
        other_tier += bool(tier) and tiers != [tier]
        counts = " ".join(part["launches"] for part in fragments)
        ran = f"{len(fragments) - len(here)} of {len(fragments)} fragments {'and '.join(tiers)}"
        print(f"# {name} {label}: {verdict}; {ran}, launches {counts}, waits {waited}", flush=True)
    if stayed:
        print(f"# {name}: on the processor: {', '.join(stayed)}", flush=True)
    figures.add(f"{name}_queries_equal", equal, f"of {len(queries)}", at_least=len(queries))
    figures.add(f"{name}_queries_failed", len(queries) - len(passed), "", at_most=0)
    figures.add(f"{name}_fragments_on_host", len(stayed), "", at_most=5)
    figures.add(f"{name}_large_fragments_on_host", stayed_large, "", at_most=0)
    figures.add(f"{name}_launches_per_fragment_max", launches, "", at_most=5)
    figures.add(f"{name}_syncs_per_query_max", syncs, "", at_most=3)
    if tier:
        figures.add(f"{name}_queries_not_{tier}_failed", other_tier, "", at_most=0)
    return passed


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def hot(served, numbers, scale, repetitions, figures, targets):
    """TPC-H hot: columns resident, literals changed at each repetition; the device and the processor by turns."""
    device = served.device
    settings = {
        "device": ["SET trireme.cpu_variant = 'fused'", f"SET trireme.devices = '{device}'", "SET trireme.device_mode = 'require'"],
        "cpu": ["SET trireme.cpu_variant = 'fused'", "SET trireme.devices = 'cpu0'"],
    }
    times = {engine: {number: [] for number in numbers} for engine in settings}
    engine_ms = {number: [] for number in numbers}
    for repetition in range(repetitions + 1):
        for engine, lines in settings.items():
            for number in numbers:
                try:
                    before = latest_run(served.client, device)
                    text = with_literals(number, repetition, scale)
                    (ms,) = served.client.times_ms(lines, [text], STATEMENT_LIMIT_S)
                    inside = engine_time(served.client, device, before) if engine == "device" else None
                except RuntimeError as error:
                    print(f"# q{number:02} {engine}: {error}", flush=True)
                    served.mend()
                    continue
                # The first one compiles kernels and brings columns.
                if repetition:
                    times[engine][number].append(ms)
                    if inside is not None:
                        engine_ms[number].append(inside)
    whole = [number for number in numbers if times["device"][number] and times["cpu"][number] and engine_ms[number]]
    for number in whole:
        ours, host = median(times["device"][number]), median(times["cpu"][number])
        figures.add(f"tpch_q{number:02}_engine", median(engine_ms[number]), "ms", at_most=targets.get(number))
        figures.add(f"tpch_q{number:02}_flight", ours, "ms")
        figures.add(f"tpch_q{number:02}_to_cpu", ours / host, "×")
    figures.add("tpch_queries_hot", len(whole), "of 22", at_least=22)
    # Totals of fewer queries are not what the targets are for.
    targets = targets if len(whole) == 22 else {}
    total = sum(median(times["device"][number]) for number in whole)
    figures.add("tpch_total_engine", sum(median(engine_ms[number]) for number in whole), "ms", at_most=targets.get("engine"))
    figures.add("tpch_total_flight", total, "ms", at_most=targets.get("flight"))
    figures.add("tpch_total_cpu", sum(median(times["cpu"][number]) for number in whole), "ms")
    return total if len(whole) == 22 else None


def engine_time(client, device, before):
    """Time in the engine of the graphs since a run, of which one at least ran on the device."""
    sql = f"SELECT run, max(total_ms), count(*) FILTER (WHERE device = '{device}') FROM system.fragments WHERE run > {before} GROUP BY run"
    found = [float(ms) for _, ms, there in client.rows([], sql) if int(there)]
    if not found:
        raise RuntimeError(f"no fragment of it ran on {device}")
    return sum(found)


def duckdb_total(data, scale, repetitions, figures, ours):
    """DuckDB on its own tables, on the same machine in the same run, where it is installed."""
    try:
        import duckdb
    except ImportError:
        print("# DuckDB is not installed: not compared", flush=True)
        return
    connection = duckdb.connect()
    for file in sorted(data.glob("*.parquet")):
        connection.execute(f"CREATE TABLE {file.stem} AS SELECT * FROM read_parquet('{file}')")
    times = {number: [] for number in range(1, 23)}
    for repetition in range(repetitions + 1):
        for number in range(1, 23):
            begin = time.perf_counter()
            connection.execute(with_literals(number, repetition, scale)).fetchall()
            if repetition:
                times[number].append((time.perf_counter() - begin) * 1000)
    total = sum(median(values) for values in times.values())
    figures.add("duckdb_total", total, "ms")
    if ours:
        figures.add("duckdb_to_device", total / ours, "×", at_least=20)


# What an H200 is to reach at SF 10, hot, in ms.
TARGETS_SF10 = {1: 1.5, 3: 3, 5: 3.5, 6: 1, 9: 5, 13: 3, 18: 4, "engine": 60, "flight": 100}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", required=True)
    parser.add_argument("--workloads", default="tpch")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--repetitions", type=int, default=0, help="hot repetitions of TPC-H; 0 is none")
    parser.add_argument("--verify", action="store_true", help="device_mode = verify in place of require")
    parser.add_argument("--tier", choices=["compiled", "interpreted"], help="fail queries whose fragments ran by another kind of kernel")
    parser.add_argument("--duckdb", action="store_true")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds that the server and the device may take to start")
    parser.add_argument("--serve", action="append", default=[], help="a further setting of the server: KEY=VALUE")
    parser.add_argument("--needed", action="store_true", help="without the device, fail")
    parser.add_argument("--area", help="write the figures to benchmarks/results under this name")
    args = parser.parse_args()
    figures = Figures(args.area or "devices", vars(args) | {"data": str(args.data) if args.data else None})
    extra = [word for setting in args.serve for word in ("--set", setting)]
    try:
        for name in args.workloads.split(","):
            data = args.data if args.data and name == "tpch" else make_data(name, args)
            with Served(data, extra, args.device, args.patience) as served:
                if not served.is_ready():
                    absent = served.client.rows([], "SELECT device, reason FROM system.devices WHERE state <> 'ready'")
                    print(f"there is no device {args.device}: {'; '.join(': '.join(row) for row in absent)}")
                    return 3 if args.needed else 0
                passed = correctness(served, name, "verify" if args.verify else "require", args.tier, figures)
                if name == "tpch" and args.repetitions:
                    targets = TARGETS_SF10 if args.scale == 10 and args.device.startswith("cuda") else {}
                    total = hot(served, [int(label[1:]) for label in passed], args.scale, args.repetitions, figures, targets)
                    if args.duckdb:
                        duckdb_total(data, args.scale, args.repetitions, figures, total)
    finally:
        # Also what there is of a run that ended early.
        if args.area and figures.rows:
            figures.write()
    checks = [row for row in figures.rows if row["name"].endswith(("_equal", "_failed", "_host", "_max")) and "verdict" in row]
    wrong = sum(row["verdict"] == "short" for row in checks)
    print(f"{len(checks) - wrong} passed, {wrong} failed, 0 skipped")
    return int(wrong > 0)


def make_data(name, args):
    import workloads

    return workloads.data(name, workloads.DATA, args.scale, args.rows)


if __name__ == "__main__":
    sys.exit(main())
