#!/usr/bin/env python3
"""Every kernel of the workloads' queries, compiled by NVRTC for sm_80, sm_90 and sm_100, without a GPU: registers, spills, time.

    check_kernels.py --checker PATH [--workloads tpch,ssb,clickbench] [--scale 0.01] [--rows 20000] [--keep DIR] [--sample N]

A simulated device writes the CUDA text of each module that the server lowers for a graphics processor; nothing runs there. `--sample N`
takes every N-th query: for quick tests.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import workloads  # noqa: E402
from bench_devices import Client  # noqa: E402
from figures import Figures  # noqa: E402
from trireme import Server  # noqa: E402

# As an H200: 48 KiB of local memory need no opt-in.
DEVICE = "memory=1GiB,group=256,items=4,groups=132,local=48KiB,wide=on,run=off"


# Queries whose kernels may spill registers, and why.
SPILLING = {("clickbench", "c29"): "90 sums at once: each work-item keeps its own, which is quicker than 90 atomics a row"}


def write_texts(name, data, folder, sample, allowed):
    """Runs a workload's queries on the simulated device; the number of queries that were lowered. Kernels that may spill go to `allowed`."""
    script = f"devices.simulated={DEVICE},texts={folder}"
    lowered = 0
    with Server(data, ["--set", script]) as server, tempfile.TemporaryDirectory() as scratch:
        client = Client(server, scratch)
        settings = ["SET trireme.cpu_variant = 'fused'", "SET trireme.devices = 'sim0'", "SET trireme.device_mode = 'require'"]
        for place, (label, sql) in enumerate(workloads.queries(name)):
            if place % sample:
                continue
            before = set(folder.glob("*.cu"))
            try:
                client.run(settings, [sql])
            except RuntimeError as error:
                # Nothing ran there, so the rows are none or nonsense; what matters is that kernels were made.
                print(f"# {name} {label}: {str(error).splitlines()[0][:200]}", flush=True)
            lowered += 1
            if (name, label) in SPILLING:
                allowed += [path.stem for path in set(folder.glob("*.cu")) - before]
    return lowered


def compiler():
    """The wheel's NVRTC beside this Python."""
    for path in sorted(pathlib.Path(sys.prefix).glob("lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.1?")):
        return path
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checker", required=True)
    parser.add_argument("--workloads", default="tpch,ssb,clickbench")
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--keep", type=pathlib.Path, help="leave the texts there")
    parser.add_argument("--allow", action="append", default=[], help="a kernel that may spill")
    parser.add_argument("--area", help="write the figures to benchmarks/results under this name")
    args = parser.parse_args()
    library = compiler()
    environment = dict(os.environ)
    if library:
        environment["TRIREME_NVRTC"] = str(library)
        environment["LD_LIBRARY_PATH"] = str(library.parent)
    elif "TRIREME_NVRTC" not in environment:
        print("NVRTC is not there: pip install nvidia-cuda-nvrtc")
        return 1
    folder = args.keep or pathlib.Path(tempfile.mkdtemp(prefix="trireme-kernels-"))
    folder.mkdir(parents=True, exist_ok=True)
    figures = Figures(args.area or "kernels", vars(args) | {"keep": None})
    for name in args.workloads.split(","):
        data = workloads.data(name, workloads.DATA, args.scale, args.rows)
        queries = write_texts(name, data, folder, args.sample, args.allow)
        figures.add(f"{name}_queries_lowered", queries, "")
    texts = sorted(folder.glob("*.cu"))
    figures.add("kernel_modules", len(texts), "", at_least=1)
    for query, why in SPILLING.items():
        print(f"# may spill: {' '.join(query)}: {why}")
    allow = [word for kernel in args.allow for word in ("--allow", kernel)]
    done = subprocess.run([args.checker, *allow, str(folder)], capture_output=True, text=True, env=environment)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    for line in done.stdout.splitlines():
        if found := re.match(r"(kernels?_\w+) = ([0-9.]+) (\S*)(?: \(target ≤ ([0-9.]+)\))?", line):
            figures.rows.append({"name": found[1], "value": float(found[2]), "unit": found[3], "target": found[4]})
    if not args.keep:
        shutil.rmtree(folder)
    if args.area:
        figures.write()
    compiled = len(texts) - (1 if done.returncode else 0)
    print(f"{compiled} passed, {len(texts) - compiled} failed, 0 skipped")
    return done.returncode or (0 if texts else 1)


if __name__ == "__main__":
    sys.exit(main())
