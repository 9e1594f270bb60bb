#!/usr/bin/env python3
"""What objectives change: placements of TPC-H, SSB and ClickBench under latency, cost and energy, with bounds, on devices of the catalogue.

    bench_objectives.py [--workloads tpch,ssb,clickbench] [--scale 0.1] [--rows 20000] [--devices gpu-l4,gpu-h200] [--write]

Nothing is run on the devices: EXPLAIN (PLACEMENT, FORMAT json, DEVICES …) says what the cost model would do beside this machine's processor, with
the objective as a hint comment. Every placement is checked: under an objective no other objective's placement of the same query is better, and
a bound is kept or the error names the nearest placement. `--write` puts the table of examples into docs/objectives.md. With `--run DEVICE`
(opencl0) the queries also run, and what choosing their places took is counted.
"""

import argparse
import contextlib
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import workloads  # noqa: E402
from figures import ROOT, Figures, percentile  # noqa: E402
from trireme import Server  # noqa: E402

VALUE = {"latency": "ms", "cost": "usd", "energy": "joules"}
EXAMPLES_MAX = 12
# Of each query whose choices are timed.
RUNS = 4
DOCUMENT = ROOT / "docs" / "objectives.md"
ABOUT = """# What objectives change

Written by `make bench-objectives ARGS='--write {arguments}'`; not by hand. The queries run nowhere: `EXPLAIN (PLACEMENT, DEVICES …)` says where their
fragments would go on this machine's processor (cpu0: {processor}) and one device of the catalogue, by what `trireme.objective`
or the hint `/*+ objective(…) */` asks for. Rent and watts are the catalogue's, or the profile's in `.trireme/costs`; modelled joules are no
measured ones. Of {cases} cases (query × device), {changed} change under `cost` or `energy`; below are the {shown} that change most.

| query | device | objective | fragments on | ms | µUSD | J |
| --- | --- | --- | --- | ---: | ---: | ---: |
"""
BOUNDED = """
A bound is kept, or the query fails before it runs, with the nearest placement: of {bounded} queries whose rent was bound to halfway between what
the quickest and the cheapest placement cost, {kept} were placed within it, and {refused} of {bounded} that were bound to a tenth of the least were
refused. For example:

```text
{example}
```
"""


def hinted(sql, hint):
    """The statement with a hint comment behind its first SELECT."""
    return re.sub(r"\bselect\b", lambda found: f"{found[0]} /*+ {hint} */", sql, count=1, flags=re.I)


def placed(cursor, sql, devices, hint):
    """(devices by fragment, totals) of a statement that is one graph; none of others."""
    cursor.execute(f"EXPLAIN (PLACEMENT, FORMAT json, DEVICES '{devices}') {hinted(sql, hint)}")
    graphs = json.loads(cursor.fetchall()[0][0])
    return (graphs[0]["chosen"], graphs[0]["totals"]) if len(graphs) == 1 else None


def where(chosen):
    return ", ".join(f"{chosen.count(device)} {device}" for device in sorted(set(chosen)))


def row(case, objective, found):
    chosen, totals = found
    numbers = f"{totals['ms']:.2f} | {totals['usd'] * 1e6:.3f} | {totals['joules']:.3f}"
    return f"| {case[0]} | {case[1]} | {objective} | {where(chosen)} | {numbers} |"


def compared(cursor, name, label, sql, device, sums):
    """The placements of a query by objective, checked against each other."""
    found = {objective: placed(cursor, sql, device, f"objective({objective})") for objective in VALUE}
    if None in found.values():
        return None
    sums["cases"] += 1
    for objective, value in VALUE.items():
        own = found[objective][1][value]
        best = min(totals[value] for _, totals in found.values())
        # Leaving the processor must gain a tenth; that much may be forgone.
        if own > best / 0.9 * 1.001 + (0.2 if objective == "latency" else 0.0):
            sums["worse"] += 1
            print(f"# worse by its own objective: {name} {label}, {device}, {objective}: {own:.4g} {value}, not {best:.4g}")
    sums["changed"] += any(found[objective][0] != found["latency"][0] for objective in ("cost", "energy"))
    return (f"{name} {label}", device), found


def bounded(cursor, sql, device, found, sums, errors):
    """A bound between the cheapest and the quickest is kept, a tenth of the cheapest refused."""
    dear, cheap = found["latency"][1]["usd"], found["cost"][1]["usd"]
    if dear <= cheap * 1.05 or sums["bounded"] >= 20:
        return
    sums["bounded"] += 1
    bound = (dear + cheap) / 2
    sums["kept"] += placed(cursor, sql, device, f"max_usd({bound:.18f})")[1]["usd"] <= bound
    try:
        placed(cursor, sql, device, f"max_usd({cheap / 10:.18f})")
    except dbapi.Error as error:
        text = str(error)
        sums["refused"] += "the nearest takes" in text
        errors.append(text)


def overhead(cursor, device, queries, micros):
    """What choosing took in the queries' runs, in microseconds. Their kernels are compiled meanwhile, on the processor's cores."""
    cursor.execute(f"SET trireme.devices = '{device}'")
    cursor.fetchall()
    for _, sql in queries:
        for _ in range(RUNS):
            cursor.execute(f"EXPLAIN ANALYZE {sql}")
            took = re.findall(r"placing_us=([\d.]+) ?(K?)", cursor.fetchall()[0][1])
            micros.extend(float(number) * (1000 if kilo else 1) for number, kilo in took)


def write(cases, sums, errors, processor, options):
    def change(case):
        _, found = case
        ratios = [found["latency"][1][VALUE[objective]] / max(found[objective][1][VALUE[objective]], 1e-15) for objective in ("cost", "energy")]
        return max(ratios)

    changed = [case for case in cases if any(case[1][objective][0] != case[1]["latency"][0] for objective in ("cost", "energy"))]
    shown = sorted(changed, key=change, reverse=True)[:EXAMPLES_MAX]
    arguments = f"--workloads {options.workloads} --scale {options.scale:g} --devices {options.devices}"
    text = ABOUT.format(arguments=arguments, processor=processor, cases=sums["cases"], changed=sums["changed"], shown=len(shown))
    text += "".join(row(case, objective, found[objective]) + "\n" for case, found in shown for objective in VALUE)
    if errors:
        text += BOUNDED.format(example=errors[0].splitlines()[0][:400], **{name: sums[name] for name in ("bounded", "kept", "refused")})
    DOCUMENT.write_text(text)
    print(f"written to {DOCUMENT.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="tpch,ssb,clickbench")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--rows", type=int, default=20_000, help="of ClickBench's table")
    parser.add_argument("--devices", default="gpu-l4,gpu-h200", help="of the catalogue, each beside the processor by itself")
    parser.add_argument("--run", help="also run the queries with this device as a candidate: opencl0")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    figures = Figures("objectives", vars(options))
    sums = dict.fromkeys(("cases", "changed", "worse", "bounded", "kept", "refused"), 0)
    cases, errors, micros, processor = [], [], [], ""
    for name in options.workloads.split(","):
        queries = workloads.queries(name)
        data = workloads.data(name, workloads.DATA, options.scale, options.rows)
        with contextlib.ExitStack() as stack:
            settings = ["--set", "devices.opencl=all", "--set", "costs.calibrate=false"] if options.run else []
            server = stack.enter_context(Server(stack.enter_context(workloads.linked(data)), settings))
            connection = stack.enter_context(contextlib.closing(dbapi.connect(server.uri, autocommit=True)))
            cursor = stack.enter_context(contextlib.closing(connection.cursor()))
            if options.run:
                # Now, not while placements are compared.
                cursor.execute("CALL calibrate()")
                cursor.fetchall()
            cursor.execute("SELECT name FROM system.devices WHERE device = 'cpu0'")
            processor = cursor.fetchall()[0][0]
            for label, sql in queries:
                for device in options.devices.split(","):
                    case = compared(cursor, name, label, sql, device, sums)
                    if case:
                        cases.append(case)
                        bounded(cursor, sql, device, case[1], sums, errors)
            if options.run:
                overhead(cursor, options.run, queries, micros)
    figures.add("cases", sums["cases"], "", at_least=1)
    figures.add("placements_changed_by_objective", sums["changed"], "", at_least=1)
    figures.add("placements_worse_by_their_own_objective", sums["worse"], "", at_most=0)
    figures.add("bounds_kept", sums["kept"], f"of {sums['bounded']}", at_least=sums["bounded"])
    figures.add("bounds_refused_with_the_nearest", sums["refused"], f"of {sums['bounded']}", at_least=sums["bounded"])
    if micros:
        figures.add("placing_p50", percentile(micros, 0.5) / 1e3, "ms", at_most=1)
        figures.add("placing_p99", percentile(micros, 0.99) / 1e3, "ms", at_most=5)
        figures.add("placing_max", max(micros) / 1e3, "ms")
    if options.write:
        write(cases, sums, errors, processor, options)
    print(f"{figures.short()} short")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
