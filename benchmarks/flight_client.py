"""Statements over pyarrow's plain Flight client: the same client for our server and for the bare one, so that a ratio of
the two tells of the servers alone. Flight SQL's messages are small enough to be written by hand."""

import multiprocessing
import threading
import time

import pyarrow.flight

URL = "type.googleapis.com/arrow.flight.protocol.sql."


def _field(number: int, value: bytes) -> bytes:
    length, size = len(value), b""
    while True:
        length, low = length >> 7, length & 0x7F
        size += bytes([low | (0x80 if length else 0)])
        if not length:
            return bytes([number << 3 | 2]) + size + value


def command(name: str, body: bytes = b"") -> bytes:
    """A Flight SQL message inside its Any."""
    return _field(1, (URL + name).encode()) + (_field(2, body) if body else b"")


def statement(sql: str) -> bytes:
    return command("CommandStatementQuery", _field(1, sql.encode()))


def connect(port: int):
    # Without a pool of its own, gRPC lets all clients of a process share one connection.
    return pyarrow.flight.connect(f"grpc+tcp://127.0.0.1:{port}", generic_options=[("grpc.use_local_subchannel_pool", 1)])


def ask(client, descriptor: bytes):
    """GetFlightInfo, then DoGet of every endpoint; rows and bytes that came."""
    info = client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(descriptor))
    rows, size_bytes = 0, 0
    for endpoint in info.endpoints:
        for chunk in client.do_get(endpoint.ticket):
            rows += chunk.data.num_rows
            size_bytes += chunk.data.nbytes
    return rows, size_bytes


def _work(port, mix, stop_at, seed, results):
    """One connection that asks `mix` (descriptor, weight) in a fixed shuffled order until the time is up."""
    counted, failures = 0, []
    client = connect(port)
    place = seed * 7919
    try:
        while time.monotonic() < stop_at:
            place += 1
            try:
                ask(client, mix[place % len(mix)])
                counted += 1
            except pyarrow.lib.ArrowException as failure:
                failures.append(str(failure)[:300])
                if len(failures) > 100:
                    break
    finally:
        client.close()
    results.append((counted, failures))


def _process(port, mix, seconds, threads, seed, ready, queue):
    results = []
    ready.wait()
    stop_at = time.monotonic() + seconds
    workers = [
        threading.Thread(target=_work, args=(port, mix, stop_at, seed * 1000 + index, results)) for index in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    queue.put((sum(count for count, _ in results), [failure for _, failures in results for failure in failures]))


def load(port, mix, connections, seconds, processes=4):
    """Queries answered within `seconds` over so many connections, and the texts of all failures."""
    context = multiprocessing.get_context("spawn")
    processes = min(processes, connections)
    shares = [connections // processes + (index < connections % processes) for index in range(processes)]
    ready, queue = context.Barrier(processes + 1), context.Queue()
    workers = [
        context.Process(target=_process, args=(port, mix, seconds, share, index, ready, queue))
        for index, share in enumerate(shares)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    outcomes = [queue.get(timeout=seconds + 120) for _ in workers]
    for worker in workers:
        worker.join()
    return sum(count for count, _ in outcomes), [failure for _, failures in outcomes for failure in failures]
