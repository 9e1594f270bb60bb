#!/usr/bin/env python3
"""K-means as SQL, iterated by the client: a device against the processor's fused variant and NumPy, by the size of the points.

    kmeans.py --device cuda0 [--clusters 8] [--iterations 5] [--sizes 4KiB,64KiB,1MiB,16MiB,256MiB,1GiB] [--area NAME]

A step is one statement: the squared distance of each point to each centroid, a CASE that takes the nearest, and the means of the points of each.
The centroids are literals, so each iteration is another statement of the same shape. Points are resident after the first.
"""

import argparse
import pathlib
import random
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

from bench_devices import STATEMENT_LIMIT_S, Client, median  # noqa: E402
from figures import Figures  # noqa: E402
from trireme import Server  # noqa: E402

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
POINT_BYTES = 16


def size_bytes(text):
    return int(text[:-3]) * UNITS[text[-3:]]


def step(centroids):
    """The statement of one iteration."""
    distances = ", ".join(
        f"(x - {x:.17g}) * (x - {x:.17g}) + (y - {y:.17g}) * (y - {y:.17g}) AS d{place}"
        for place, (x, y) in enumerate(centroids)
    )
    last = len(centroids) - 1
    nearest = " ".join(
        "WHEN " + " AND ".join(f"d{place} <= d{other}" for other in range(place + 1, last + 1)) + f" THEN {place}"
        for place in range(last)
    )
    # A later WHEN is reached only by points whose earlier distances aren't the least.
    return (
        f"SELECT c, avg(x), avg(y), count(*) FROM (SELECT x, y, CASE {nearest} ELSE {last} END AS c "
        f"FROM (SELECT x, y, {distances} FROM points) AS d) AS n GROUP BY c ORDER BY c"
    )


def moved(centroids, rows):
    """Centroids after a step; one without points stays."""
    found = {int(row[0]): (float(row[1]), float(row[2])) for row in rows}
    return [found.get(place, centroid) for place, centroid in enumerate(centroids)]


def iterate(client, settings, start, iterations):
    """The centroids after all iterations, and the time of each statement but the first."""
    centroids, times = start, []
    for _ in range(iterations + 1):
        sql = step(centroids)
        times += client.times_ms(settings, [sql], STATEMENT_LIMIT_S)
        centroids = moved(centroids, client.rows(settings, sql))
    return centroids, times[1:]


def numpy_ms(data, start, iterations):
    """The same in NumPy, on the same points; none where it isn't there."""
    try:
        import time

        import numpy as np
    except ImportError:
        return None
    rng = np.random.default_rng(1)
    x, y = rng.random(data // POINT_BYTES), rng.random(data // POINT_BYTES)
    centroids, times = np.array(start), []
    for _ in range(iterations):
        begin = time.perf_counter()
        distances = [(x - cx) ** 2 + (y - cy) ** 2 for cx, cy in centroids]
        nearest = np.argmin(distances, axis=0)
        counts = np.bincount(nearest, minlength=len(centroids)).clip(1)
        sums = [np.bincount(nearest, weights=values, minlength=len(centroids)) for values in (x, y)]
        centroids = np.stack([total / counts for total in sums], axis=1)
        times.append((time.perf_counter() - begin) * 1000)
    return median(times)


def close(one, other):
    return all(abs(a - b) <= 1e-6 for left, right in zip(one, other) for a, b in zip(left, right))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", required=True)
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--sizes", default="4KiB,64KiB,1MiB,16MiB,256MiB,1GiB")
    parser.add_argument("--serve", action="append", default=[], help="a further setting of the server: KEY=VALUE")
    parser.add_argument("--needed", action="store_true", help="without the device, fail")
    parser.add_argument("--area", help="write the figures to benchmarks/results under this name")
    args = parser.parse_args()
    figures = Figures(args.area or "kmeans", vars(args))
    extra = [word for setting in args.serve for word in ("--set", setting)]
    rng = random.Random(7)
    start = [(rng.random(), rng.random()) for _ in range(args.clusters)]
    modes = {
        "cpu": ["SET trireme.cpu_variant = 'fused'", "SET trireme.devices = 'cpu0'"],
        "device": ["SET trireme.cpu_variant = 'fused'", f"SET trireme.devices = '{args.device}'", "SET trireme.device_mode = 'require'"],
        "auto": [f"SET trireme.devices = '{args.device}'"],
    }
    wrong = 0
    for size in args.sizes.split(","):
        rows = size_bytes(size) // POINT_BYTES
        with tempfile.TemporaryDirectory() as folder, Server(folder, extra) as server, tempfile.TemporaryDirectory() as scratch:
            client = Client(server, scratch)
            if not client.is_ready(args.device):
                print(f"there is no device {args.device}")
                return 3 if args.needed else 0
            # Spread evenly, and the same in every run: a Weyl sequence.
            points = f"SELECT value * 0.6180339887498949 % 1.0 AS x, value * 0.7548776662466927 % 1.0 AS y FROM range({rows})"
            client.run([], [f"COPY ({points}) TO 'points.parquet' STORED AS PARQUET"])
            try:
                ended = {name: iterate(client, lines, start, args.iterations) for name, lines in modes.items()}
            except RuntimeError as error:
                print(f"# {size}: {error}", flush=True)
                wrong += 1
                continue
        wrong += sum(not close(ended["cpu"][0], other) for other, _ in ended.values())
        ms = {name: median(times) for name, (_, times) in ended.items()}
        large = size_bytes(size) >= 256 << 20
        figures.add(f"kmeans_{size}_device", ms["device"], "ms")
        figures.add(f"kmeans_{size}_cpu", ms["cpu"], "ms")
        figures.add(f"kmeans_{size}_gain", ms["cpu"] / ms["device"], "×", at_least=8 if large else None)
        figures.add(f"kmeans_{size}_auto_to_cpu", ms["cpu"] / ms["auto"], "×", at_least=0.95)
        if (other := numpy_ms(size_bytes(size), start, args.iterations)) is not None:
            figures.add(f"kmeans_{size}_numpy", other, "ms")
    figures.add("kmeans_wrong", wrong, "", at_most=0)
    if args.area:
        figures.write()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
