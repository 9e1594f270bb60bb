"""Small inputs: one query over 1 … 10⁶ rows on the processor, on the device, and as the cost model chooses; with a plot.

The choice must be within 5 % or 1 ms of the best. The plot's second panel has what the model predicts of a large card that is
not here, from EXPLAIN (PLACEMENT, DEVICES …): where the lines cross, the device begins to be chosen.
"""

import contextlib
import pathlib

import duckdb
import svg
import workloads
from placement_real import Case, Client, ready, serve

STEPS = range(0, 13)
QUERY = "SELECT k, sum(v) AS s, count(*) AS n FROM t{step} WHERE v < 80 GROUP BY k ORDER BY k"
MODELLED = "gpu-h200"


def rows_of(step):
    return round(10 ** (step / 2))


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    for step in STEPS:
        out = folder / f"t{step:02}.parquet"
        if not out.exists():
            made = f"SELECT (i * 7919) % 16 AS k, (i * 104729) % 100 AS v FROM range({rows_of(step)}) AS r(i)"
            connection.execute(f"COPY ({made}) TO '{out}' (FORMAT parquet)")
    return folder


def predicted(client, sql):
    """What the model predicts of each device, all fragments there, in ms; none where it can't run."""
    client.cursor.execute(f"EXPLAIN (PLACEMENT, DEVICES '{MODELLED}') {sql}")
    table = client.cursor.fetch_arrow_table().to_pydict()
    sums = {}
    for device, ms in zip(table["device"], table["total_ms"]):
        sums[device] = sums.get(device, 0.0) + (ms or 0.0)
    return sums


def crossing(points, one, other):
    """The least number of rows from which `other` is quicker, once and for all."""
    found = None
    for rows, values in points:
        if values[other] < values[one]:
            found = found or rows
        else:
            found = None
    return found


def measure(args, figures, out):
    folder = make(pathlib.Path(workloads.DATA) / "small")
    points, modelled = [], []
    with contextlib.ExitStack() as stack:
        kernels = pathlib.Path(workloads.DATA) / "kernels"
        client = Client(serve(folder, stack, kernels, ["--set", f"costs.dir={args.profiles}"]), stack)
        if not ready(client, args.device):
            return
        for step in STEPS:
            sql = QUERY.format(step=f"{step:02}")
            case = Case(client, args.device, sql)
            case.options.pop("datafusion")
            case.warm()
            case.run(args.small_repetitions, args.case_s)
            points.append((rows_of(step), case.found()["times"]))
            sums = predicted(client, sql)
            modelled.append((rows_of(step), {"fused": sums.get("cpu0", 0.0), "device": sums.get(MODELLED, 0.0)}))
    lost = 0.0
    for rows, times in points:
        best = min(times.values())
        if times["cost"] > best * 1.05:
            lost = max(lost, times["cost"] - best)
        print(f"# {rows} rows: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in times.items()))
    figures.add("small_inputs_beyond_5_percent", lost, "ms", at_most=1)
    cross = crossing(points, "fused", "device")
    print(f"# {args.device} is quicker from {cross} rows on" if cross else f"# {args.device} is never quicker up to {points[-1][0]} rows")
    cross = crossing(modelled, "fused", "device")
    print(f"# {MODELLED}, modelled, is quicker from {cross} rows on" if cross else f"# {MODELLED}, modelled, is never quicker")
    lines = {
        "processor": [(rows, times["fused"]) for rows, times in points],
        args.device: [(rows, times["device"]) for rows, times in points],
        "chosen": [(rows, times["cost"]) for rows, times in points],
    }
    model = {
        "processor": [(rows, times["fused"]) for rows, times in modelled],
        MODELLED: [(rows, times["device"]) for rows, times in modelled],
    }
    svg.write_grid(out, "Small inputs: who is quicker", [("measured, with the client", lines), ("modelled, in the engine", model)], "rows", "ms")
    print(f"plot: {out.name}")
