"""Figures of all benchmarks in one form: a line each, and JSON that names machine, commit and settings.

    name = value unit (target ≤ x) ok
"""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Figures:
    """Collects the figures of one run. `area` names the file: <area>-<machine>-<date>.json in results/, or in TRIREME_BENCH_RESULTS."""

    def __init__(self, area: str, settings: dict):
        self.area = area
        self.settings = settings
        self.rows = []

    def add(self, name, value, unit, at_most=None, at_least=None):
        """Prints one figure; against its target it is `ok` or `short`."""
        row = {"name": name, "value": value, "unit": unit}
        line = f"{name} = {_short(value)} {unit}".rstrip()
        if at_most is not None or at_least is not None:
            sign, target = ("≤", at_most) if at_most is not None else ("≥", at_least)
            holds = value <= target if at_most is not None else value >= target
            row |= {"target": f"{sign} {_short(target)}", "verdict": "ok" if holds else "short"}
            line += f" (target {sign} {_short(target)}) {row['verdict']}"
        print(line, flush=True)
        self.rows.append(row)

    def short(self) -> int:
        """How many figures miss their target."""
        return sum(row.get("verdict") == "short" for row in self.rows)

    def write(self) -> pathlib.Path:
        machine = describe_machine()
        now = datetime.datetime.now(datetime.timezone.utc)
        record = {
            "area": self.area,
            "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": machine,
            "commit": describe_commit(),
            "settings": self.settings,
            "figures": self.rows,
        }
        name = f"{self.area}-{machine['name']}-{now.strftime('%Y-%m-%d')}.json"
        folder = pathlib.Path(os.environ.get("TRIREME_BENCH_RESULTS", ROOT / "benchmarks" / "results"))
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        print(f"written to {path.name}")
        return path


def _short(value) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def describe_machine() -> dict:
    """What the machine is, without its name on any network."""
    cpu = platform.processor() or platform.machine()
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    cores = len(os.sched_getaffinity(0))
    words = re.sub(r"\(.*?\)|@.*|\b(CPU|Processor)\b", "", cpu)
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "machine"
    return {
        "name": f"{slug}-{cores}c",
        "cpu": cpu,
        "cores": cores,
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "system": f"{platform.system()} {platform.release()}",
    }


def describe_commit() -> str:
    def git(*arguments):
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        except OSError:  # a machine without git
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return commit + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def _read(path) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def percentile(values, fraction) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
