"""What runs of the fuzzer add up to: over the workers of a run, and over runs with the help of a file that says how many
queries ran at which commit."""

import collections
import json
import os
import time

import numpy
from batch import QUERIES_PER_BATCH
from figures import describe_commit

SAVE_SECONDS = 30.0


class Total:
    """Counts, CPU time, shapes and batches done. With `path` they are read from there and go on."""

    def __init__(self, path=None):
        self.path = path
        self.commit = describe_commit()
        self.by_commit = collections.Counter()  # queries
        self.counts = collections.Counter()
        self.messages = collections.Counter()
        self.examples = {}
        self.shapes = set()
        self.batches = {}  # seed → numbers
        self.cpu = [0.0, 0.0]  # of the workers with DuckDB, of their servers
        self.seconds = 0.0
        self.memory = 0
        self._saved = time.monotonic()
        if path and path.exists():
            self._load(json.loads(path.read_text()))

    def _load(self, state):
        self.by_commit.update(state["queries_by_commit"])
        self.counts.update(state["counts"])
        self.cpu, self.seconds, self.memory = state["cpu_seconds"], state["seconds"], state["server_peak_bytes"]
        self.batches = {
            seed: {number for first, last in spans for number in range(first, last + 1)} for seed, spans in state["batches"].items()
        }
        shapes = self._shapes_path()
        if shapes.exists():
            self.shapes = set(numpy.fromfile(shapes, numpy.uint64).tolist())

    def _shapes_path(self):
        return self.path.with_suffix(".shapes")

    def add(self, seed, number, counts, messages, examples, shapes, failures, cpu, memory):
        """What a worker says of one batch."""
        self.counts.update(counts)
        self.by_commit[self.commit] += counts["queries"]
        self.messages.update(messages)
        self.examples |= examples
        self.shapes |= shapes
        self.cpu = [mine + its for mine, its in zip(self.cpu, cpu)]
        self.memory = max(self.memory, memory)
        if number >= 0:
            self.batches.setdefault(seed, set()).add(number)
        if self.path and time.monotonic() > self._saved + SAVE_SECONDS:
            self.save()

    def save(self):
        """Writes the file, so that a killed run loses seconds only."""
        if not self.path:
            return
        self._saved = time.monotonic()
        state = {
            "queries_by_commit": self.by_commit,
            "counts": self.counts,
            "cpu_seconds": self.cpu,
            "seconds": self.seconds,
            "server_peak_bytes": self.memory,
            "batches": {seed: spans(numbers) for seed, numbers in self.batches.items()},
        }
        numpy.array(sorted(self.shapes), numpy.uint64).tofile(self._shapes_path())
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(state, indent=1) + "\n")
        os.replace(new, self.path)

    def shape_count(self):
        return len(self.shapes)

    def last_seed(self):
        return next(reversed(self.batches), None)

    def next_batch(self, seed, at_least):
        return max([at_least, *(number + 1 for number in self.batches.get(seed, ()))])

    def ranges(self):
        """Of each seed, the numbers of its queries that ran."""
        size = QUERIES_PER_BATCH
        return {
            seed: [f"{first * size}–{(last + 1) * size - 1}" for first, last in spans(numbers)]
            for seed, numbers in self.batches.items()
        }


def spans(numbers):
    """Numbers as pairs of first and last."""
    found = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
