"""What bench_lake measures with: a simulated store, our server over it, other engines over it, and a table whose decoding
costs next to nothing.

The store and the other engines are processes of their own; the engines' packages live in an environment of their own
(`TRIREME_TOOLS/lake`), since DuckDB's extension for object stores must be of DuckDB's version.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import numpy  # noqa: E402
import pyarrow  # noqa: E402
import pyarrow.parquet as parquet  # noqa: E402
from trireme import Server, binary  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
# A counter of a scan: `scan_0_lineitem_wait_us=134.9 K`.
SCAN_METRIC = re.compile(r"scan_\d+_\w+?_(wait_us|waits|used_bytes|fetched_bytes|requests)=([\d.]+) ?([KMBT]?)")
UNITS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
# What all connections of `near` and `far` carry together.
CEILING_BYTES_PER_SECOND = 1.25e9


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Store:
    """A running simstore."""

    def __init__(self, profile="none"):
        command = [binary("simstore", "SIMSTORE_BIN"), "--profile", profile]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def _ask(self, method, path, body=None):
        request = urllib.request.Request(f"{self.url}/_sim/{path}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def profile(self, name, **fields):
        """Another profile; fields change what it says."""
        self._ask("POST", "profile", json.dumps({"name": name} | fields).encode())

    def reset(self):
        self._ask("POST", "reset", b"")

    def counters(self) -> dict:
        return json.loads(self._ask("GET", "counters"))

    def total(self) -> dict:
        return self.counters()["total"]

    def requests(self) -> list:
        return json.loads(self._ask("GET", "requests"))

    def put(self, bucket, key, data):
        self._ask("PUT", f"object/{bucket}/{key}", bytes(data))

    def compose(self, bucket, key, pieces):
        self._ask("POST", f"compose/{bucket}/{key}", json.dumps(pieces).encode())

    def mount(self, bucket, folder):
        self._ask("POST", f"mount?bucket={bucket}&folder={folder}", b"")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Ours:
    """Our server over a store, in a fresh data folder, and one client of it. A restart keeps the folder."""

    def __init__(self, store=None, data=None, settings=None):
        self.store = store
        self.folder = pathlib.Path(data) if data else pathlib.Path(tempfile.mkdtemp(prefix="lake-bench-"))
        self.own_folder = data is None
        self.settings = dict(settings or {})
        self._start()

    def _start(self):
        settings = dict(self.settings)
        if self.store:
            settings["io.allowed_locations"] = f"s3://lake,s3://tpch,{self.store.url}"
        arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        self.server = Server(self.folder, arguments)
        self.connection = dbapi.connect(self.server.uri, autocommit=True)

    def _stop(self):
        with contextlib.suppress(Exception):
            self.connection.close()
        self.server.stop()
        os.unlink(self.server._log.name)

    def restart(self):
        self._stop()
        self._start()

    def client(self):
        return dbapi.connect(self.server.uri, autocommit=True)

    def run(self, sql, connection=None):
        with (connection or self.connection).cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

    def timed(self, sql):
        begin = time.perf_counter()
        self.run(sql)
        return time.perf_counter() - begin

    def first_batch(self, sql):
        """Seconds until the first rows are here, of a statement that is not prepared; the rest is not read."""
        with self.client() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
            statement = cursor.adbc_statement
            begin = time.perf_counter()
            statement.set_sql_query(sql)
            stream, _ = statement.execute_query()
            reader = pyarrow.RecordBatchReader._import_from_c(stream.address)
            while reader.read_next_batch().num_rows == 0:
                pass
            return time.perf_counter() - begin

    def tables(self, bucket, keys):
        """External tables: name → key of a file, or prefix of a folder."""
        options = f"'aws.endpoint' '{self.store.url}', 'aws.allow_http' 'true', 'aws.region' 'us-east-1', "
        options += "'aws.access_key_id' 'key', 'aws.secret_access_key' 'secret'"
        for name, key in keys.items():
            self.run(f"CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION 's3://{bucket}/{key}' OPTIONS ({options})")

    def analyzed(self, sql) -> dict:
        """Sums of the lake's counters in EXPLAIN ANALYZE, by name without scan and table."""
        text = "\n".join(self.run("EXPLAIN ANALYZE " + sql).column("plan").to_pylist())
        sums = {}
        for name, number, unit in SCAN_METRIC.findall(text):
            sums[name] = sums.get(name, 0.0) + float(number) * UNITS[unit]
        return sums

    def stores(self) -> dict:
        """Sums of `system.stores`, over all stores."""
        table = self.run("SELECT * FROM system.stores").drop_columns(["store"])
        return {name: sum(table[name].to_pylist()) for name in table.column_names}

    def metrics(self) -> dict:
        """Sums of all metrics, by name without labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.http_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        sums = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{", 1)[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def cpu(self) -> float:
        return cpu_seconds(self.server.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Rival:
    """Another engine in a fresh process: datafusion, duckdb or pyarrow."""

    def __init__(self, engine, store, bucket, tables):
        python = pathlib.Path(os.environ.get("TRIREME_TOOLS", "")) / "lake" / "bin" / "python"
        self.process = subprocess.Popen(
            [str(python), str(HERE / "lake_rival.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        answer = self._ask({"engine": engine, "endpoint": store.url, "bucket": bucket, "tables": tables})
        self.version = answer["version"]

    def _ask(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "the engine ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def run(self, sql):
        """Rows, of small results, as text."""
        return self._ask({"sql": sql})["rows"]

    def timed(self, sql):
        return self._ask({"sql": sql})["seconds"]

    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Sink(io.RawIOBase):
    """Counts what is written, and keeps what comes after `keep_from`."""

    def __init__(self):
        self.position = 0
        self.keep_from = None
        self.kept = []

    def writable(self):
        return True

    def tell(self):
        return self.position

    def write(self, data):
        data = bytes(data) if self.keep_from is not None else data
        size = len(memoryview(data).cast("B"))
        self.position += size
        if self.keep_from is not None:
            self.kept.append(data)
        return size


class Wide:
    """A table of eight columns of plain, uncompressed doubles, in files whose row groups are all the same bytes: of any size
    in the store, of the memory of one row group. Its sums are exact."""

    COLUMNS = "abcdefgh"

    def __init__(self, store, bucket, files, groups, prefix="wide/", rows=1 << 20, seed=5):
        rng = numpy.random.default_rng(seed)
        columns = {name: rng.integers(0, 1000, rows).astype(numpy.float64) for name in self.COLUMNS}
        table = pyarrow.table(columns)
        options = {"compression": "none", "use_dictionary": False, "data_page_size": 1 << 20}
        one = io.BytesIO()
        with parquet.ParquetWriter(one, table.schema, **options) as writer:
            writer.write_table(table, row_group_size=rows)
            writer.write_table(table, row_group_size=rows)
        data = one.getvalue()
        first = parquet.read_metadata(io.BytesIO(data)).row_group(0)
        # After the magic bytes.
        size = sum(first.column(index).total_compressed_size for index in range(first.num_columns))
        if data[4 : 4 + size] != data[4 + size : 4 + 2 * size]:
            raise RuntimeError("two row groups of the same rows differ")
        footer = self._footer(table, groups, options, rows)
        store.put("pieces", "group", data[: 4 + size])
        store.put("pieces", "footer", footer)
        pieces = [
            {"bucket": "pieces", "key": "group", "start": 0, "end": 4},
            {"bucket": "pieces", "key": "group", "start": 4, "end": 4 + size, "times": groups},
            {"bucket": "pieces", "key": "footer", "start": 0, "end": len(footer)},
        ]
        for index in range(files):
            store.compose(bucket, f"{prefix}{index:02}.parquet", pieces)
        self.key = prefix
        self.bytes = files * groups * size
        self.sql = "SELECT " + ", ".join(f"sum({name}) AS {name}" for name in self.COLUMNS) + " FROM wide"
        self.sums = [float(columns[name].sum()) * files * groups for name in self.COLUMNS]

    @staticmethod
    def _footer(table, groups, options, rows):
        sink = Sink()
        writer = parquet.ParquetWriter(pyarrow.PythonFile(sink, mode="w"), table.schema, **options)
        for _ in range(groups):
            writer.write_table(table, row_group_size=rows)
        sink.keep_from = sink.position
        writer.close()
        return b"".join(sink.kept)

    def check(self, row):
        """The sums are right."""
        got = [float(value) for value in row]
        if got != self.sums:
            raise RuntimeError(f"wrong sums: {got} instead of {self.sums}")


def raw_fetch(store, bucket, keys, size, connections, part=8 << 20):
    """Seconds in which plain sockets read so many bytes of each object: what this machine can take from the store now."""
    import http.client

    parts = [(key, start) for key in keys for start in range(0, size, part)]
    lock = threading.Lock()
    address = store.url.removeprefix("http://")

    def worker():
        buffer = bytearray(1 << 20)
        connection = http.client.HTTPConnection(address)
        while True:
            with lock:
                if not parts:
                    return
                key, start = parts.pop()
            headers = {"Range": f"bytes={start}-{min(start + part, size) - 1}"}
            connection.request("GET", f"/{bucket}/{key}", headers=headers)
            answer = connection.getresponse()
            while answer.readinto(buffer):
                pass

    threads = [threading.Thread(target=worker) for _ in range(connections)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
