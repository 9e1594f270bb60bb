#!/usr/bin/env python3
"""What the parts of a conformance matrix add up to, from what each of them printed.

    matrix_total.py --device sim|opencl LOG ...

The JSON is written when all parts are there (`part 3/20`: twenty).
"""

import argparse
import pathlib
import re
import sys

from figures import Figures

PART = re.compile(r"part (\d+)/(\d+) of the matrix in ([\d.]+) minutes; [^:]*: (\d+) cases: (.*)")
LEFT_OUT = re.compile(r"left out: (\d+) cases")
KERNELS = re.compile(r"part \S+: (\d+) kernels compiled")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", required=True)
    parser.add_argument("logs", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()

    done, parts, failed, minutes, kernels = set(), 0, 0, 0.0, 0
    counts = {"cases": 0}
    for log in arguments.logs:
        text = log.read_text(errors="replace")
        part = PART.search(text)
        if part is None or "test result: ok. 1 passed" not in text:
            failed += 1
            continue
        number, parts = int(part[1]), int(part[2])
        done.add(number)
        minutes += float(part[3])
        counts["cases"] += int(part[4])
        for count, kind in re.findall(r"(\d+) ([a-z ]+)", part[5]):
            kind = kind.strip().replace(" ", "_")
            counts[kind] = counts.get(kind, 0) + int(count)
        counts["left_out"] = counts.get("left_out", 0) + sum(map(int, LEFT_OUT.findall(text)))
        kernels += sum(map(int, KERNELS.findall(text)))

    figures = Figures(f"matrix-{arguments.device}", {"parts": f"{len(done)} of {parts}"})
    prefix = f"matrix_{arguments.device}"
    figures.add(f"{prefix}_failed_parts", failed, "parts", at_most=0)
    for kind, count in counts.items():
        figures.add(f"{prefix}_{kind}", count, "cases")
    if kernels:
        figures.add(f"{prefix}_kernels", kernels, "kernels")
    figures.add(f"{prefix}_minutes", round(minutes, 1), "min")
    if parts and len(done) + failed == parts:
        figures.write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
