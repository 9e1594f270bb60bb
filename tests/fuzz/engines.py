"""The engines of one worker: two sessions of a server of its own, one for each variant, and DuckDB with the same tables."""

import os
import re
import shutil
import warnings

import duckdb
import pyarrow
import pyarrow.flight as flight
from compare import difference
from flight_client import connect, statement
from known import KNOWN

QUERY_SECONDS_MAX = float(os.environ.get("FUZZ_QUERY_SECONDS", "30"))
RESULT_ROWS_MAX = 100_000
VARIANTS = ("fused", "datafusion")
ERRORS_OF_THE_SERVER = re.compile(
    r"returned (internal|unavailable|unknown) error|connection refused|panicked|internal error|does not satisfy"
    r"|invalid comparison operation",
    re.IGNORECASE,
)
WRAPPING = re.compile(r"^(gRPC|Flight) returned .*? error, with message: |\. (gRPC client debug context|Client context).*$", re.DOTALL)
REACHED_FREELY = re.compile(r" LIMIT |JOIN | INTERSECT | EXCEPT |EXISTS \(| IN \(SELECT|\(SELECT")

warnings.filterwarnings("ignore", message="Arrow output on a DB-API result", category=UserWarning)


class Failure(Exception):
    """`kind` says what differs; a smaller query must fail with the same kind."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Known(Exception):
    """An error of known.txt: counted, not a failure."""


class Session:
    """Statements over plain Flight calls: without preparing, and on a connection that stays."""

    def __init__(self, port):
        self.client = connect(port)
        self.options = flight.FlightCallOptions(timeout=QUERY_SECONDS_MAX)

    def ask(self, sql) -> pyarrow.Table:
        info = self.client.get_flight_info(flight.FlightDescriptor.for_command(statement(sql)), self.options)
        tables = [self._read(endpoint.ticket) for endpoint in info.endpoints]
        return tables[0] if len(tables) == 1 else pyarrow.concat_tables(tables)

    def _read(self, ticket):
        reader = self.client.do_get(ticket, self.options)
        batches, rows = [], 0
        for chunk in reader:
            batches.append(chunk.data)
            rows += chunk.data.num_rows
            if rows > RESULT_ROWS_MAX:
                reader.cancel()
                raise Known("result too large")
        return pyarrow.Table.from_batches(batches, reader.schema)

    def close(self):
        self.client.close()


class Engines:
    """Asks all three and compares; `count(name, message, sql)` is told what happens."""

    def __init__(self, server, data, count):
        self.server, self.data, self._count = server, data, count
        self.counting = True  # not while a query is made smaller
        self.minimised = 0
        self.sessions = {variant: Session(server.port) for variant in VARIANTS}
        self.nan_tables = set()  # in which DataFusion may read NaN as another value
        self.duck = duckdb.connect(config={"threads": 1})
        self.duck.execute("SET integer_division = true")
        self.duck.execute("SET default_null_order = 'NULLS_LAST_ON_ASC_FIRST_ON_DESC'")
        self.duck.execute("SET TimeZone = 'UTC'")
        # It takes `SELECT a.x, b.y FROM a, b` and `SELECT a.y, b.x FROM a, b` of one table, under UNION, for the same.
        self.duck.execute("SET disabled_optimizers = 'common_subplan'")

    def set(self, settings):
        """Settings of a batch. The variants are set each time: a session ends with its connection."""
        for variant, session in self.sessions.items():
            session.ask(f"SET trireme.cpu_variant = '{variant}'")
            session.ask(f"SET trireme.device_mode = '{'require' if variant == 'fused' else 'off'}'")
            session.ask(f"SET trireme.plan_cache = {'true' if variant == 'fused' else 'false'}")
            shown = session.ask("SHOW trireme.cpu_variant").column(1)[0].as_py()
            if shown != variant:
                raise RuntimeError(f"SET trireme.cpu_variant = {variant} has no effect: it is {shown}")
            for setting in settings:
                only, _, rest = setting.partition(": ")
                if only not in VARIANTS:
                    session.ask(f"SET {setting}")
                elif only == variant:
                    session.ask(f"SET {rest}")

    def close(self):
        for session in self.sessions.values():
            session.close()
        self.duck.close()

    def server_cpu_seconds(self):
        """CPU time of the server's process so far."""
        try:
            with open(f"/proc/{self.server.process.pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def create(self, table, folder):
        one = self.sessions["fused"]
        table.write(self.data / folder)
        self.nan_tables.discard(table.name)
        if table.nan_beside_one_value():
            self.nan_tables.add(table.name)
        if table.native:
            one.ask(f"CREATE EXTERNAL TABLE {table.name}_e STORED AS PARQUET LOCATION '{folder}/*.parquet'")
            one.ask(f"CREATE TABLE {table.name} AS SELECT * FROM {table.name}_e")
            one.ask(f"DROP TABLE {table.name}_e")
        else:
            one.ask(f"CREATE EXTERNAL TABLE {table.name} STORED AS PARQUET LOCATION '{folder}/*.parquet'")
        self.duck.execute(f"CREATE TABLE {table.name} AS SELECT * FROM read_parquet('{self.data / folder}/*.parquet')")

    def drop(self, table, folder):
        self.sessions["fused"].ask(f"DROP TABLE IF EXISTS {table.name}")
        self.duck.execute(f"DROP TABLE IF EXISTS {table.name}")
        shutil.rmtree(self.data / folder, ignore_errors=True)

    def ask(self, variant, sql):
        """An Arrow table, or the text of the error."""
        try:
            return self.sessions[variant].ask(sql)
        except flight.FlightTimedOutError as error:
            raise Failure("timeout", f"{variant} took more than {QUERY_SECONDS_MAX:.0f} s") from error
        except pyarrow.ArrowException as error:
            text = str(error)
        if self.server.process.poll() is not None:
            raise Failure("dead", f"the server ended with {self.server.process.returncode} ({variant})")
        for pattern, name in KNOWN:
            if re.search(pattern, text):
                raise Known(name)
        if ERRORS_OF_THE_SERVER.search(text):
            raise Failure(f"internal {variant}", f"{variant}: {text[:1500]}")
        return WRAPPING.sub("", text)

    def count(self, name, message=None, sql=""):
        if self.counting:
            self._count(name, message, sql)

    def check(self, query):
        """Runs a query everywhere; raises a Failure where answers differ."""
        sql = query.sql()
        fused, plain = (self.ask(variant, sql) for variant in VARIANTS)
        if isinstance(fused, str) or isinstance(plain, str):
            self.check_errors(sql, fused, plain)
            return
        if fused.schema != plain.schema:
            raise Failure("schema", f"fused has the schema {fused.schema}, DataFusion {plain.schema}")
        if problem := difference(plain, fused, query.order_given()):
            if any(name == "B18" for _, name in KNOWN) and any(f" {name} " in sql for name in self.nan_tables):
                raise Known("B18")
            raise Failure("rows", f"fused against DataFusion: {problem}{self.opinion(query, fused, plain)}")
        self.count("both_answer")
        self.check_duck(query, plain)

    def duck_contradicts_itself(self, sql, query, plain):
        """Whether DuckDB's answer is ours once it does not optimise."""
        self.duck.execute("PRAGMA disable_optimizer")
        try:
            answer = self.duck.execute(sql).to_arrow_table()
            return not difference(answer, plain, query.order_given(), loosely=True)
        except duckdb.Error:
            return False
        finally:
            self.duck.execute("PRAGMA enable_optimizer")

    def opinion(self, query, fused, plain):
        """Which of two answers is DuckDB's."""
        if not query.same_in_duck():
            return ""
        try:
            answer = self.duck.execute(query.sql(duck=True)).to_arrow_table()
        except duckdb.Error:
            return ""
        answers = zip(VARIANTS, (fused, plain))
        agree = [name for name, mine in answers if not difference(answer, mine, query.order_given(), loosely=True)]
        return f" (DuckDB agrees with {' and '.join(agree) or 'neither'})"

    def check_errors(self, sql, fused, plain):
        if isinstance(fused, str) and isinstance(plain, str):
            self.count("both_fail", plain, sql)
            return
        if REACHED_FREELY.search(sql):
            self.count("free_errors")
            return  # which rows are reached is free
        if isinstance(fused, str):
            raise Failure("error fused", f"only fused fails: {fused[:1000]}")
        raise Failure("error datafusion", f"only DataFusion fails: {plain[:1000]}")

    def check_duck(self, query, plain):
        if not query.same_in_duck():
            self.count("not_for_duckdb")
            return
        sql = query.sql(duck=True)
        try:
            answer = self.duck.execute(sql).to_arrow_table()
        except duckdb.Error as error:
            self.count("duckdb_fails", f"duckdb: {error}", sql)
            return
        self.count("with_duckdb")
        if problem := difference(answer, plain, query.order_given(), loosely=True):
            if self.duck_contradicts_itself(sql, query, plain):
                self.count("duckdb_contradicts_itself", "duckdb: another answer without its optimiser, which is ours", sql)
                return
            raise Failure("duckdb", f"both variants against DuckDB: {problem}")
