#!/usr/bin/env python3
"""Random queries over random tables: fused pipelines against DataFusion's operators against DuckDB.

Both variants must give the same schema and the same rows, or both fail. DuckDB must agree too, where it means the same
(README.md). A failure is printed with its seed, made smaller, and can be run again alone.

    fuzz_sql.py [--seconds 60] [--seed S] [--processes 2]   as many queries as fit
    fuzz_sql.py --seed S --only N                           query N of that seed
    fuzz_sql.py --state FILE --write …                      goes on where FILE ends, adds up, writes benchmarks/results
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import queue as queues
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "e2e"), str(HERE.parents[1] / "benchmarks")]

import worker  # noqa: E402
from batch import QUERIES_PER_BATCH, Batch  # noqa: E402
from engines import Engines, Failure  # noqa: E402
from figures import Figures  # noqa: E402
from total import Total  # noqa: E402
from trireme import Server  # noqa: E402

QUERIES_WANTED = 1_000_000
BATCH_SECONDS_MAX = 900.0  # of one batch, once the time is up


def run(arguments, total):
    """Worker processes until the time, or the queries, are up; `total` grows batch by batch."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    first = total.next_batch(arguments.seed, arguments.batch)
    next_batch = context.Value("q", first)
    last = first + -(-arguments.queries // QUERIES_PER_BATCH) if arguments.queries else 1 << 60
    stop_at = time.time() + arguments.seconds
    shared = (arguments.seed, next_batch, last, arguments.set, arguments.serve, stop_at, results)
    workers = [context.Process(target=worker.main, args=shared, daemon=True) for _ in range(arguments.processes)]
    begin, before = time.monotonic(), total.seconds
    for process in workers:
        process.start()
    running = len(workers)
    while running:
        try:
            result = results.get(timeout=5)
        except queues.Empty:
            if not any(process.is_alive() for process in workers) or time.time() > stop_at + BATCH_SECONDS_MAX:
                print("\n=== FAILURE (fuzzer): a worker ended without a word", flush=True)
                total.counts["failures"] += 1
                break
            continue
        if result is None:
            running -= 1
            continue
        total.seconds = before + time.monotonic() - begin
        total.add(arguments.seed, *result)
        for _, _, text in result[5]:
            print(text, flush=True)
    for process in workers:
        process.join(timeout=30)
    total.seconds = before + time.monotonic() - begin


def run_one(arguments):
    """One query of the seed; True if it fails."""
    report = worker.Report()
    with tempfile.TemporaryDirectory(prefix="trireme-fuzz-") as scratch, Server(scratch, arguments.serve) as server:
        engines = Engines(server, pathlib.Path(scratch), report.count)
        batch = Batch.of(arguments.seed, arguments.only // QUERIES_PER_BATCH, arguments.set)
        print(batch.query(arguments.only).sql(), flush=True)
        try:
            batch.run(engines, [arguments.only], lambda kind, number, text: (report.tell(kind, number, text), print(text)))
        except Failure:
            server.kill()
        engines.close()
    print(", ".join(f"{name} {count}" for name, count in report.counts.items()))
    return bool(report.failures)


def figures(arguments, total):
    settings = {"seconds": round(total.seconds), "processes": arguments.processes, "seeds": total.ranges(), "queries_by_commit": total.by_commit}
    figures = Figures("fuzz-sql", settings)
    counts = total.counts
    figures.add("fuzz_queries", counts["queries"], "queries", at_least=QUERIES_WANTED)
    figures.add("fuzz_query_shapes", total.shape_count(), "shapes")
    figures.add("fuzz_queries_answered_by_both", counts["both_answer"], "queries")
    figures.add("fuzz_queries_with_duckdb", counts["with_duckdb"], "queries")
    figures.add("fuzz_queries_both_fail", counts["both_fail"], "queries")
    figures.add("fuzz_queries_free_errors", counts["free_errors"], "queries")
    for name in sorted(name for name in counts if name.startswith("known ")):
        print(f"  {counts[name]} × {name}")
    figures.add("fuzz_queries_known_errors", counts["known"], "queries")
    figures.add("fuzz_queries_per_second", counts["queries"] / max(total.seconds, 0.001), "/s")
    figures.add("fuzz_cpu_seconds_fuzzer_and_duckdb", total.cpu[0], "s")
    figures.add("fuzz_cpu_seconds_servers", total.cpu[1], "s")
    figures.add("fuzz_queries_per_core_second", counts["queries"] / max(sum(total.cpu), 0.001), "/s")
    figures.add("fuzz_server_peak_bytes", total.memory, "bytes")
    figures.add("fuzz_failures", counts["failures"], "queries", at_most=0)
    for seed, batches in total.ranges().items():
        print(f"seed {seed}: queries {', '.join(batches)}")
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="time; a batch that is begun is ended")
    parser.add_argument("--queries", type=int, help="at most about so many")
    parser.add_argument("--seed", default=None, help="any text; random when absent")
    parser.add_argument("--only", type=int, help="run one query of the seed, by its number")
    parser.add_argument("--batch", type=int, default=0, help="the first batch of tables")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--state", type=pathlib.Path, help="file of what ran before, to go on from")
    parser.add_argument("--write", action="store_true", help="write the figures to benchmarks/results")
    parser.add_argument("--verbose", action="store_true", help="an example of each error that all have")
    parser.add_argument("--serve", action="append", default=[], help="a further argument of the server")
    parser.add_argument("--set", action="append", default=[], help="a setting of every session: NAME = VALUE; fused: NAME = VALUE, of one variant's")
    arguments = parser.parse_args()
    total = Total(arguments.state)
    arguments.seed = arguments.seed or total.last_seed() or str(int.from_bytes(os.urandom(4), "big"))
    print(f"seed {arguments.seed}", flush=True)
    if arguments.only is not None:
        return 1 if run_one(arguments) else 0
    before = collections.Counter(total.counts)
    run(arguments, total)
    total.save()
    for text, count in total.messages.most_common(25):
        print(f"  {count} × {text}" + (f"\n      {total.examples[text]}" if arguments.verbose else ""))
    made = figures(arguments, total)
    if arguments.write:
        made.write()
    return 1 if total.counts["failures"] > before["failures"] or total.counts["queries"] == before["queries"] else 0


if __name__ == "__main__":
    sys.exit(main())
