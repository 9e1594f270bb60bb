#!/usr/bin/env python3
"""Where fragments are placed, and what that loses: on the devices that are there, and on simulated ones.

    bench_placement.py [--device opencl0] [--workloads expressions,tpch,ssb,clickbench] [--scales 0.01,0.1] [--minutes 7] [--only real,small,simulated]
                       [--states resident,cold]

Real: every query of the workloads as the cost model places it, all on the processor (fused, DataFusion), all on the device, and with every
single fragment moved, in one run (placement_real.py); errors of predicted times; small inputs with a plot (placement_small.py). A processor
behind OpenCL (PoCL) is a device like any other here. Simulated: devices of the catalogue, each with rates of its own that the model doesn't
know, over recorded graphs (`planner/costs/examples/regret`). Larger data: `--only real --scales 1 --minutes 17 --area placement-sf1`. Exits with 1 when something fails, not when a figure falls short.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

from figures import ROOT, Figures, describe_machine  # noqa: E402

LINE = re.compile(r"([\w.]+) = (\S+) ?(\S*?)(?: \(target ([≤≥]) (\S+)\) (?:ok|short))?")


def simulated(args, figures):
    cargo = ["cargo", "run", "--quiet", "--release", "-p", "trireme-costs", "--example", "regret", "--"]
    command = [args.example] if args.example else cargo
    done = subprocess.run([*command, str(args.seeds)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("#"):
            print(line)
            continue
        found = LINE.fullmatch(line.strip())
        if not found:
            raise ValueError(f"no figure: {line}")
        name, value, unit, sign, target = found.groups()
        bound = {} if sign is None else {"at_most" if sign == "≤" else "at_least": float(target)}
        figures.add(name, float(value), unit, **bound)


def calibrated(args, figures):
    """Measures the devices that are there, quickly and thoroughly; the profiles' folder keeps the thorough ones."""
    from trireme import clean_environment, server_binary

    words = ["--set", "devices.opencl=all", "--set", f"costs.dir={args.profiles}"]
    with tempfile.TemporaryDirectory() as data:
        for name, option, limit in (("quick", ["--quick"], None), ("full", [], 60)):
            command = [server_binary(), "calibrate", "--data", data, *option, *words]
            begin = time.monotonic()
            done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
            figures.add(f"calibrate_{name}_with_start", time.monotonic() - begin, "s", at_most=limit)
            took = [float(text) for text in re.findall(r"measured in ([0-9.]+) s", done.stdout)]
            figures.add(f"calibrate_{name}", sum(took), "s", at_most=limit or 3)
    print("".join(f"# {line}\n" for line in done.stdout.splitlines()), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="real,small,simulated")
    parser.add_argument("--device", default="opencl0")
    parser.add_argument("--workloads", default="expressions,tpch,ssb,clickbench")
    parser.add_argument("--scales", default="0.01,0.1")
    parser.add_argument("--states", default="resident,cold", help="where columns are; predicted times are judged over resident ones only")
    parser.add_argument("--repetitions", type=int, default=7, help="of each option, at most")
    parser.add_argument("--case-s", type=float, default=0.6, help="of each query: after so long options are run no more than twice")
    parser.add_argument("--flips", type=int, default=4, help="of each query, at most")
    parser.add_argument("--minutes", type=float, default=7, help="for all that is real")
    parser.add_argument("--small-repetitions", type=int, default=7)
    parser.add_argument("--learning-s", type=float, default=30)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--area", default="placement", help="name of the file in benchmarks/results")
    parser.add_argument("--example", help="the built example; without it cargo builds and runs it")
    args = parser.parse_args()
    only = args.only.split(",")
    figures = Figures(args.area, {name: value for name, value in vars(args).items() if name != "example"})
    if "simulated" in only:
        simulated(args, figures)
    if "real" in only or "small" in only:
        import placement_real
        import placement_small

        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as profiles:
            args.profiles = profiles
            calibrated(args, figures)
            if "small" in only:
                machine = describe_machine()["name"]
                placement_small.measure(args, figures, ROOT / "benchmarks" / "results" / f"{args.area}-{machine}.svg")
            if "real" in only:
                args.end = begin + args.minutes * 60 - args.learning_s
                placement_real.measure(args, figures)
    print(f"{figures.short()} short")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
