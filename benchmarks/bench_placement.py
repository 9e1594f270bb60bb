#!/usr/bin/env python3
"""Where fragments are placed, and what that loses: the figures of `planner/costs/examples/regret.rs`, kept as JSON.

    bench_placement.py [--seeds 4] [--area placement] [--example PATH]

Simulated devices of the catalogue, each with rates of its own that the model doesn't know, over the recorded graphs of TPC-H, SSB and
ClickBench. No server and no device is needed. Exits with 1 when the example fails, not when a figure falls short.
"""

import argparse
import re
import subprocess
import sys

from figures import ROOT, Figures

LINE = re.compile(r"(\w+) = (\S+) ?(\S*?)(?: \(target ([≤≥]) (\S+)\) (?:ok|short))?")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--area", default="placement", help="name of the file in benchmarks/results")
    parser.add_argument("--example", help="the built example; without it cargo builds and runs it")
    args = parser.parse_args()
    cargo = ["cargo", "run", "--quiet", "--release", "-p", "trireme-costs", "--example", "regret", "--"]
    command = [args.example] if args.example else cargo
    done = subprocess.run([*command, str(args.seeds)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    figures = Figures(args.area, {"seeds": args.seeds})
    for line in done.stdout.splitlines():
        found = LINE.fullmatch(line.strip())
        if not found:
            raise ValueError(f"no figure: {line}")
        name, value, unit, sign, target = found.groups()
        bound = {} if sign is None else {"at_most" if sign == "≤" else "at_least": float(target)}
        figures.add(name, float(value), unit, **bound)
    print(f"{figures.short()} short")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
