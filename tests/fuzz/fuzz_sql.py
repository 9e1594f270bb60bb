#!/usr/bin/env python3
"""Random queries over random tables: fused pipelines against DataFusion's operators against DuckDB.

Both variants must give the same schema and the same rows, or both fail. DuckDB must agree too, where it means the same
(README.md). A failure is printed with its seed, made smaller, and can be run again alone.

    fuzz_sql.py [--seconds 60] [--seed S] [--threads 2]     as many queries as fit
    fuzz_sql.py --seed S --only N                           query N of that seed
"""

import argparse
import collections
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "e2e"), str(HERE.parents[1] / "benchmarks")]

import adbc_driver_flightsql.dbapi as dbapi  # noqa: E402
import duckdb  # noqa: E402
import pyarrow  # noqa: E402
from compare import difference, rows_of  # noqa: E402
from figures import Figures  # noqa: E402
from minimise import minimise, minimise_rows  # noqa: E402
from queries import Queries  # noqa: E402
from tables import make_tables  # noqa: E402
from trireme import Server  # noqa: E402

QUERIES_PER_BATCH = 250
QUERY_SECONDS_MAX = 30.0
RESULT_ROWS_MAX = 100_000
VARIANTS = ("fused", "datafusion")
ERRORS_OF_THE_SERVER = re.compile(
    r"UNAVAILABLE|connection refused|EOF|panicked|internal error|INTERNAL|does not satisfy|invalid comparison operation",
    re.IGNORECASE,
)
ERRORS_OF_TIME = re.compile(r"DEADLINE|deadline exceeded|TIMEOUT|timed out", re.IGNORECASE)


class Failure(Exception):
    """`kind` says what differs; a smaller query must fail with the same kind."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Known(Exception):
    """An error of known.txt: counted, not a failure."""


def known_errors():
    """Lines `name pattern` of known.txt, until those bugs are fixed."""
    lines = (HERE / "known.txt").read_text().splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    return [(pattern, name) for name, pattern in pairs]


KNOWN = known_errors()


class Counts:
    def __init__(self):
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.failures = []
        self.messages = collections.Counter()
        self.examples = {}

    def add(self, name):
        with self.lock:
            self.counts[name] += 1

    def message(self, text, sql):
        text = re.sub(r"[0-9]+|\"[^\"]*\"|'[^']*'", "#", text.split("\n")[0])[:110]
        with self.lock:
            self.messages[text] += 1
            if len(sql) < len(self.examples.get(text, sql + " ")):
                self.examples[text] = sql


class Runner:
    """The connections of one thread: one for each variant, and DuckDB."""

    def __init__(self, server, data, counts, settings):
        self.server, self.data, self.counts = server, data, counts
        self.stuck = False
        self.counting = True  # not while a query is made smaller
        seconds = str(QUERY_SECONDS_MAX)
        times = {f"adbc.flight.sql.rpc.timeout_seconds.{call}": seconds for call in ("query", "fetch", "update")}
        self.connections = {}
        for variant in VARIANTS:
            connection = dbapi.connect(server.uri, conn_kwargs=times, autocommit=True)
            self.connections[variant] = connection
            self.tell(connection, f"SET trireme.cpu_variant = '{variant}'")
            self.tell(connection, f"SET trireme.device_mode = '{'require' if variant == 'fused' else 'off'}'")
            for setting in settings:
                self.tell(connection, f"SET {setting}")
            with connection.cursor() as cursor:
                cursor.execute("SHOW trireme.cpu_variant")
                if (shown := cursor.fetchall()[0][-1]) != variant:
                    print(f"warning: SET trireme.cpu_variant = {variant} has no effect: it is {shown}", flush=True)
        self.duck = duckdb.connect(config={"threads": 1})
        self.duck.execute("SET integer_division = true")
        self.duck.execute("SET default_null_order = 'NULLS_LAST_ON_ASC_FIRST_ON_DESC'")
        self.duck.execute("SET TimeZone = 'UTC'")

    def close(self):
        for connection in self.connections.values():
            connection.close()
        self.duck.close()

    @staticmethod
    def tell(connection, sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)

    def create(self, table, folder):
        one = self.connections["fused"]
        table.write(self.data / folder)
        if table.native:
            self.tell(one, f"CREATE EXTERNAL TABLE {table.name}_e STORED AS PARQUET LOCATION '{folder}/*.parquet'")
            self.tell(one, f"CREATE TABLE {table.name} AS SELECT * FROM {table.name}_e")
            self.tell(one, f"DROP TABLE {table.name}_e")
        else:
            self.tell(one, f"CREATE EXTERNAL TABLE {table.name} STORED AS PARQUET LOCATION '{folder}/*.parquet'")
        self.duck.execute(f"CREATE TABLE {table.name} AS SELECT * FROM read_parquet('{self.data / folder}/*.parquet')")

    def drop(self, table, folder):
        self.tell(self.connections["fused"], f"DROP TABLE {table.name}")
        self.duck.execute(f"DROP TABLE {table.name}")
        shutil.rmtree(self.data / folder, ignore_errors=True)

    def ask(self, variant, sql):
        """An Arrow table, or the text of the error."""
        try:
            with self.connections[variant].cursor() as cursor:
                cursor.execute(sql)
                return self.fetch(cursor)
        except Known:
            raise
        except Exception as error:  # noqa: BLE001 - an error is a result of this run
            text = str(error)
        if self.server.process.poll() is not None:
            raise Failure("dead", f"the server ended with {self.server.process.returncode} ({variant})")
        if ERRORS_OF_TIME.search(text):
            raise Failure("timeout", f"{variant} took more than {QUERY_SECONDS_MAX:.0f} s")
        for pattern, name in KNOWN:
            if re.search(pattern, text):
                raise Known(name)
        if ERRORS_OF_THE_SERVER.search(text):
            raise Failure(f"internal {variant}", f"{variant}: {text[:1500]}")
        return text

    @staticmethod
    def fetch(cursor):
        reader = cursor.fetch_record_batch()
        batches, rows = [], 0
        for batch in reader:
            batches.append(batch)
            rows += batch.num_rows
            if rows > RESULT_ROWS_MAX:
                reader.close()
                raise Known("result too large")
        return pyarrow.Table.from_batches(batches, reader.schema)

    def count(self, name, message=None, sql=""):
        if self.counting:
            self.counts.add(name)
            if message:
                self.counts.message(message, sql)

    def check(self, query):
        """Runs a query everywhere; raises a Failure where answers differ."""
        sql = query.sql()
        answers = {variant: self.ask(variant, sql) for variant in VARIANTS}
        fused, plain = answers.values()
        if isinstance(fused, str) or isinstance(plain, str):
            self.check_errors(sql, fused, plain)
            return
        if fused.schema != plain.schema:
            raise Failure("schema", f"fused has the schema {fused.schema}, DataFusion {plain.schema}")
        ordered = bool(query.order)
        fused_rows, plain_rows = rows_of(fused), rows_of(plain)
        if problem := difference(plain_rows, fused_rows, ordered):
            raise Failure("rows", f"fused against DataFusion: {problem}")
        self.check_duck(query, plain, ordered)

    def check_errors(self, sql, fused, plain):
        if isinstance(fused, str) and isinstance(plain, str):
            self.count("both_fail", plain, sql)
            return
        if re.search(r" LIMIT |JOIN |EXISTS \(| IN \(SELECT|\(SELECT", sql):
            self.count("free_errors")
            return  # which rows are reached is free
        if isinstance(fused, str):
            raise Failure("error fused", f"only fused fails: {fused[:1000]}")
        raise Failure("error datafusion", f"only DataFusion fails: {plain[:1000]}")

    def check_duck(self, query, plain, ordered):
        if not query.same_in_duck():
            self.count("not_for_duckdb")
            return
        try:
            answer = self.duck.sql(query.sql(duck=True)).to_arrow_table()
        except duckdb.Error as error:
            self.count("duckdb_fails", f"duckdb: {error}", query.sql(duck=True))
            return
        self.count("with_duckdb")
        if problem := difference(rows_of(answer, True), rows_of(plain, True), ordered):
            raise Failure("duckdb", f"both variants against DuckDB: {problem}")


class Batch:
    """Tables, and the queries over them. Query N of a seed is always the same."""

    def __init__(self, seed, number):
        self.number = number
        self.seed = seed
        self.tables = make_tables(random.Random(f"{seed}/{number}"), f"b{number}")
        self.folders = {table.name: f"files/{table.name}" for table in self.tables}
        self.attempts = 0

    def query(self, number):
        return Queries(random.Random(f"{self.seed}/{self.number}/{number}"), self.tables).make()

    def run(self, runner, numbers):
        created = []
        try:
            for table in self.tables:
                created.append(table)
                runner.create(table, self.folders[table.name])
            for number in numbers:
                if time.monotonic() > runner.deadline:
                    break
                self.one(runner, number)
        finally:
            if runner.server.process.poll() is None and not runner.stuck:
                for table in created:
                    runner.drop(table, self.folders[table.name])

    def one(self, runner, number):
        query = self.query(number)
        runner.counts.add("queries")
        try:
            runner.check(query)
        except Known as known:
            runner.counts.add("known")
            runner.counts.add(f"known {known}")
        except Failure as failure:
            self.report(runner, number, query, failure)

    def report(self, runner, number, query, failure):
        text = f"\n=== FAILURE ({failure.kind}) --seed {self.seed} --only {number}\n{query.sql()}\n{failure}\n"
        runner.counts.add("failures")
        if failure.kind not in ("dead", "timeout"):
            runner.counting = False
            text += self.smaller(runner, query, failure.kind)
            runner.counting = True
        print(text, flush=True)
        with runner.counts.lock:
            runner.counts.failures.append(number)
        if failure.kind in ("dead", "timeout"):
            # After a timeout the server may be busy with what nobody waits for: this thread has seen enough of it.
            print(runner.server.log()[-3000:], flush=True)
            runner.stuck = True
            raise failure

    def smaller(self, runner, query, kind):
        def fails(candidate):
            try:
                runner.check(candidate)
            except Failure as failure:
                return failure.kind == kind
            except Known:
                pass
            return False

        query = minimise(query, fails)
        sql = query.sql()
        used = [table for table in self.tables if re.search(rf"\b{table.name}\b", sql)]
        originals = [table.data for table in used]
        for table in used:
            self.fewer_rows(runner, table, lambda: fails(query))
        text = f"--- smaller\n{sql}\n"
        try:
            runner.check(query)
        except (Failure, Known) as failure:
            text += f"{failure}\n"
        for table in used:
            names = [column.name for column in table.columns if re.search(rf"\b{column.name}\b", sql)] or ["k"]
            shown = table.data.select(names)
            kind = "native" if table.native else f"{table.files} files, groups of {table.rows_per_group}"
            text += f"{table.name} ({kind}, {shown.num_rows} rows): {', '.join(str(field) for field in shown.schema)}\n"
            text += "".join(f"  {row}\n" for row in rows_of(shown)[:12])
        for table, data in zip(used, originals):
            if table.data is not data:
                self.put(runner, table, data)
        return text

    def fewer_rows(self, runner, table, fails):
        def still(data):
            self.put(runner, table, data)
            return fails()

        original = table.data
        self.put(runner, table, minimise_rows(original, still))
        if not fails():
            self.put(runner, table, original)

    def put(self, runner, table, data):
        """Other rows in a table; under another path, so that nothing cached is read."""
        runner.drop(table, self.folders[table.name])
        self.attempts += 1
        self.folders[table.name] = f"files/{table.name}_{self.attempts}"
        table.data = data
        runner.create(table, self.folders[table.name])


def work(numbers, seed, runner_of, counts, deadline):
    """One thread: batch after batch."""
    runner = runner_of()
    runner.deadline = deadline
    try:
        while time.monotonic() < deadline and runner.server.process.poll() is None:
            with counts.lock:
                number = next(numbers)
            first = number * QUERIES_PER_BATCH
            Batch(seed, number).run(runner, range(first, first + QUERIES_PER_BATCH))
    except Failure:
        pass
    except Exception as error:  # noqa: BLE001 - one thread less is a failure of the run, not its end
        counts.add("failures")
        print(f"\n=== FAILURE (fuzzer) --seed {seed}: {type(error).__name__}: {error}", flush=True)
    finally:
        if not runner.stuck:
            runner.close()


def counter(start=0):
    while True:
        yield start
        start += 1


def run(arguments):
    counts = Counts()
    begin = time.monotonic()
    deadline = begin + arguments.seconds
    with tempfile.TemporaryDirectory(prefix="trireme-fuzz-") as scratch:
        data = pathlib.Path(scratch)
        with Server(data, arguments.serve) as server:
            runner_of = lambda: Runner(server, data, counts, arguments.set)  # noqa: E731
            if arguments.only is not None:
                runner = runner_of()
                runner.deadline = float("inf")
                batch = Batch(arguments.seed, arguments.only // QUERIES_PER_BATCH)
                print(batch.query(arguments.only).sql(), flush=True)
                batch.run(runner, [arguments.only])
                runner.close()
                return counts, time.monotonic() - begin
            numbers = counter(arguments.batch)
            threads = [
                threading.Thread(target=work, args=(numbers, arguments.seed, runner_of, counts, deadline))
                for _ in range(arguments.threads)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return counts, time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", default=None, help="any text; random when absent")
    parser.add_argument("--only", type=int, help="run one query of the seed, by its number")
    parser.add_argument("--batch", type=int, default=0, help="the first batch of tables")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--verbose", action="store_true", help="an example of each error that all have")
    parser.add_argument("--serve", action="append", default=[], help="a further argument of the server")
    parser.add_argument("--set", action="append", default=[], help="a setting of every session: NAME = VALUE")
    arguments = parser.parse_args()
    arguments.seed = arguments.seed or str(int.from_bytes(os.urandom(4), "big"))
    print(f"seed {arguments.seed}", flush=True)
    counts, seconds = run(arguments)
    for text, count in counts.messages.most_common(25):
        print(f"  {count} × {text}" + (f"\n      {counts.examples[text]}" if arguments.verbose else ""))
    settings = {"seed": arguments.seed, "seconds": arguments.seconds, "threads": arguments.threads}
    figures = Figures("fuzz-sql", settings)
    figures.add("fuzz_queries", counts.counts["queries"], "queries", at_least=1_000_000 if arguments.seconds >= 3600 else None)
    figures.add("fuzz_queries_with_duckdb", counts.counts["with_duckdb"], "queries")
    figures.add("fuzz_queries_both_fail", counts.counts["both_fail"], "queries")
    for name in sorted(name for name in counts.counts if name.startswith("known ")):
        print(f"  {counts.counts[name]} × {name}")
    figures.add("fuzz_queries_known_errors", counts.counts["known"], "queries")
    figures.add("fuzz_queries_per_second", counts.counts["queries"] / max(seconds, 0.001), "/s")
    figures.add("fuzz_failures", counts.counts["failures"], "queries", at_most=0)
    return 1 if counts.counts["failures"] or not counts.counts["queries"] else 0


if __name__ == "__main__":
    sys.exit(main())
