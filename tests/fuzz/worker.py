"""One worker process: a server of its own, both sessions, DuckDB; batch after batch until the parent's time is up."""

import collections
import pathlib
import re
import resource
import signal
import tempfile
import time
import zlib

from batch import Batch
from engines import Engines, Failure
from trireme import Server

NUMBERS_AND_TEXTS = re.compile(r"[0-9]+|\"[^\"]*\"|'[^']*'")
CONSTANTS = re.compile(r"'(?:[^']|'')*'|\b\d[\d.]*\b")
TABLES = re.compile(r"\bb\d+t")
SERVER_BATCHES_MAX = 400  # then a fresh one


class Report:
    """What a worker tells the parent after each batch; `add`ing it empties it."""

    def __init__(self):
        self.counts = collections.Counter()
        self.messages = collections.Counter()
        self.examples = {}
        self.shapes = set()
        self.failures = []

    def count(self, name, message=None, sql=""):
        self.counts[name] += 1
        if message:
            text = NUMBERS_AND_TEXTS.sub("#", message.split("\n")[0])[:110]
            self.messages[text] += 1
            if len(sql) < len(self.examples.get(text, sql + " ")):
                self.examples[text] = sql

    def tell(self, kind, number, text):
        self.counts["failures"] += 1
        self.failures.append((kind, number, text))


def shape_of(sql) -> int:
    """A number that queries share which differ only in constants, or in which batch their tables are of."""
    bare = CONSTANTS.sub("?", TABLES.sub("t", sql)).encode()
    return zlib.crc32(bare) | zlib.adler32(bare) << 32


def run_batches(seed, take, settings, serve, stop_at, send):
    """Runs batch after batch; `take()` gives the next one's number, `send(number, report, …)` takes what came of it."""
    todo = None  # (batch, the numbers of its queries that did not run yet)
    while todo or time.time() < stop_at:
        with tempfile.TemporaryDirectory(prefix="trireme-fuzz-") as scratch, Server(scratch, serve) as server:
            report = Report()
            engines = Engines(server, pathlib.Path(scratch), report.count)
            _watch_shapes(engines, report)
            own, served = _own_seconds(), 0.0
            try:
                for _ in range(SERVER_BATCHES_MAX):
                    todo = todo or _next(seed, take, settings, stop_at)
                    if todo is None:
                        return
                    batch, numbers = todo
                    batch.run(engines, numbers, report.tell)
                    todo = None
                    now = _own_seconds(), engines.server_cpu_seconds()
                    send(batch.number, report, (now[0] - own, now[1] - served), server.memory_bytes("VmHWM"))
                    own, served = now
                    report.__init__()
            except Failure as failure:
                cpu = (_own_seconds() - own, engines.server_cpu_seconds() - served)
                numbers = range(failure.number + 1, numbers.stop)
                todo = (Batch.of(seed, batch.number, settings), numbers) if numbers else None
                send(-1 if todo else batch.number, report, cpu, 0)
                server.kill()
            finally:
                engines.close()


def _next(seed, take, settings, stop_at):
    number = take() if time.time() < stop_at else None
    if number is None:
        return None
    batch = Batch.of(seed, number, settings)
    return batch, batch.numbers()


def _watch_shapes(engines, report):
    check = type(engines).check

    def watching(query):
        if engines.counting:
            report.shapes.add(shape_of(query.sql()))
        check(engines, query)

    engines.check = watching


def _own_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(seed, next_batch, last_batch, settings, serve, stop_at, queue):
    """The process: results go to `queue`, at last `None`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def take():
        with next_batch.get_lock():
            if next_batch.value >= last_batch:
                return None
            next_batch.value += 1
            return next_batch.value - 1

    def send(number, report, cpu, memory):
        parts = (report.counts, report.messages, report.examples, report.shapes, report.failures)
        queue.put((number, *(type(part)(part) for part in parts), cpu, memory))

    try:
        run_batches(seed, take, settings, serve, stop_at, send)
    except Exception as error:  # noqa: BLE001 - one worker less is a failure of the run, not its end
        report = Report()
        report.tell("fuzzer", -1, f"\n=== FAILURE (fuzzer) --seed {seed}: {type(error).__name__}: {error}")
        send(-1, report, (0.0, 0.0), 0)
    queue.put(None)
