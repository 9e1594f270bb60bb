"""ADBC's Flight SQL driver: the way Python programs, Power BI and many others come in."""

import datetime
import decimal
import threading
import time

import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager
import pyarrow
import pyarrow.parquet as parquet
import pytest
from adbc_driver_flightsql import DatabaseOptions
from conftest import PASSWORD, USER


@pytest.fixture(scope="module", autouse=True)
def tables(server):
    with dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a BIGINT NOT NULL, s VARCHAR, d DECIMAL(10, 2), day DATE, PRIMARY KEY (a))")
        cursor.execute("INSERT INTO t VALUES (1, 'one', 1.50, DATE '2024-01-01'), (2, NULL, 2.50, DATE '2024-01-02')")
        cursor.execute("CREATE SCHEMA sales")
        cursor.execute("CREATE TABLE sales.child (id BIGINT, a BIGINT REFERENCES public.t (a))")
        cursor.execute("CREATE VIEW v AS SELECT a FROM t")


@pytest.fixture
def connection(server):
    with dbapi.connect(server.uri) as connection:
        yield connection


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def test_query(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT a, s, d, day FROM t ORDER BY a")
        assert [column[0] for column in cursor.description] == ["a", "s", "d", "day"]
        assert cursor.fetchall() == [
            (1, "one", decimal.Decimal("1.50"), datetime.date(2024, 1, 1)),
            (2, None, decimal.Decimal("2.50"), datetime.date(2024, 1, 2)),
        ]


def test_empty_result_has_its_columns(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT a, s FROM t WHERE false")
        table = cursor.fetch_arrow_table()
    assert table.num_rows == 0
    assert table.schema.names == ["a", "s"]
    assert table.schema.field("s").type == pyarrow.string()


@pytest.mark.parametrize("sql", ["SELECT a FROM t WHERE a = ?", "SELECT a FROM t WHERE a = $1"])
def test_parameters(connection, sql):
    assert rows(connection, sql, (2,)) == [(2,)]
    assert rows(connection, sql, (99,)) == []


@pytest.mark.parametrize(
    "sql_type, value",
    [
        ("BIGINT", 42),
        ("BIGINT", -(2**63)),
        ("DOUBLE", 1.5),
        ("VARCHAR", "naïve – 雪"),
        ("VARCHAR", ""),
        ("BOOLEAN", True),
        ("DATE", datetime.date(2024, 2, 29)),
        ("TIMESTAMP", datetime.datetime(2024, 2, 29, 12, 34, 56, 789000)),
        ("BYTEA", b"\x00\xff"),
        ("BIGINT", None),
        ("VARCHAR", None),
    ],
)
def test_parameter_types(connection, sql_type, value):
    assert rows(connection, f"SELECT CAST($1 AS {sql_type}) AS v", (value,)) == [(value,)]


def test_mixed_parameters(connection):
    sql = "SELECT a FROM t WHERE a >= ? AND day = ? AND (s = ? OR s IS NULL)"
    assert rows(connection, sql, (1, datetime.date(2024, 1, 1), "one")) == [(1,)]


def test_executemany_inserts_every_row(connection):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE many (a BIGINT, s VARCHAR)")
        cursor.executemany("INSERT INTO many VALUES (?, ?)", [(n, f"n{n}") for n in range(250)])
    assert rows(connection, "SELECT count(*), sum(a), max(s) FROM many") == [(250, 31125, "n99")]
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM many WHERE a < 100")
    assert rows(connection, "SELECT count(*) FROM many") == [(150,)]


def test_changes_run_once_and_at_once(connection, server):
    """Autocommit is off in Python by default; no transactions are announced, so every statement stands by itself."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE once (a BIGINT)")
        cursor.execute("INSERT INTO once VALUES (1)")
    with dbapi.connect(server.uri) as other:
        assert rows(other, "SELECT count(*) FROM once") == [(1,)], "another connection sees it without a commit"


def test_no_transactions_are_announced(server):
    with pytest.warns(Warning, match="(?i)autocommit"):
        connection = dbapi.connect(server.uri)
    with connection:
        with pytest.raises(dbapi.Error):
            connection.adbc_connection.set_autocommit(False)


def test_get_info(connection):
    info = connection.adbc_get_info()
    assert "trireme" in info["vendor_name"].lower()
    assert info["vendor_version"]
    assert info["vendor_arrow_version"]


@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "all"])
def test_get_objects(connection, depth):
    catalogs = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
    assert [catalog["catalog_name"] for catalog in catalogs] == ["trireme"]
    if depth == "catalogs":
        return
    schemas = {schema["db_schema_name"]: schema for schema in catalogs[0]["catalog_db_schemas"]}
    assert {"public", "sales", "information_schema", "system"} <= set(schemas)
    if depth == "db_schemas":
        return
    tables = {table["table_name"]: table for table in schemas["public"]["db_schema_tables"]}
    assert {"t", "v"} <= set(tables)
    if depth == "tables":
        return
    columns = tables["t"]["table_columns"]
    assert [column["column_name"] for column in columns] == ["a", "s", "d", "day"]
    assert columns[0]["ordinal_position"] == 1
    assert all(column["xdbc_type_name"] for column in columns), "Power BI needs the type's name"


def test_get_objects_filters(connection):
    found = connection.adbc_get_objects(depth="tables", db_schema_filter="sal%", table_name_filter="ch%").read_all().to_pylist()
    schemas = [schema for catalog in found for schema in catalog["catalog_db_schemas"]]
    assert [(s["db_schema_name"], [t["table_name"] for t in s["db_schema_tables"]]) for s in schemas] == [("sales", ["child"])]
    none = connection.adbc_get_objects(depth="tables", table_name_filter="no such table").read_all().to_pylist()
    assert not [t for c in none for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]]


def test_get_table_schema(connection):
    schema = connection.adbc_get_table_schema("t", db_schema_filter="public")
    assert schema.names == ["a", "s", "d", "day"]
    assert schema.types == [pyarrow.int64(), pyarrow.string(), pyarrow.decimal128(10, 2), pyarrow.date32()]
    assert not schema.field("a").nullable
    with pytest.raises(dbapi.Error):
        connection.adbc_get_table_schema("no_such_table")


def test_get_table_types(connection):
    assert "VIEW" in connection.adbc_get_table_types()


def test_set_holds_for_its_connection(connection, server):
    def shown(of):
        return rows(of, "SHOW trireme.batch_rows")[0][-1]

    before = shown(connection)
    with connection.cursor() as cursor:
        cursor.execute("SET trireme.batch_rows = 321")
    assert shown(connection) == "321"
    with dbapi.connect(server.uri) as other:
        assert shown(other) == before


def test_current_schema(connection):
    assert connection.adbc_current_db_schema == "public"
    assert connection.adbc_current_catalog == "trireme"
    connection.adbc_connection.set_options(**{"adbc.connection.db_schema": "sales"})
    assert rows(connection, "SELECT count(*) FROM child") == [(0,)]


def test_execute_schema(connection):
    with connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema("SELECT a, d FROM t")
    assert schema.names == ["a", "d"]


def test_execute_partitions(connection):
    with connection.cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("SELECT a FROM t ORDER BY a")
        assert schema.names == ["a"]
        found = []
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            found += cursor.fetchall()
    assert found == [(1,), (2,)]


@pytest.mark.parametrize("change", ["DROP TABLE gone", "CREATE OR REPLACE TABLE gone AS SELECT 7 AS a"])
def test_a_waiting_query_outlives_its_table(server, connection, change):
    rows(connection, "CREATE TABLE gone AS SELECT value AS a FROM range(1000)")
    folders = server.data / ".trireme" / "tables"
    with connection.cursor() as cursor, connection.cursor() as other:
        partitions, _ = cursor.adbc_execute_partitions("SELECT sum(a), count(*) FROM gone")
        before = set(folders.iterdir())
        other.execute(change)
        assert before <= set(folders.iterdir())
        cursor.adbc_read_partition(partitions[0])
        assert cursor.fetchall() == [(499_500, 1_000)]
    end = time.monotonic() + 60
    while before <= set(folders.iterdir()):
        assert time.monotonic() < end, "the dropped table's files stay"
        time.sleep(0.05)
    rows(connection, "DROP TABLE IF EXISTS gone")


def test_ten_million_rows(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT value AS n, value * 0.5 AS h FROM range(10000000)")
        count, total = 0, 0
        for batch in cursor.fetch_record_batch():
            count += batch.num_rows
            total += pyarrow.compute.sum(batch.column(0)).as_py() or 0
    assert count == 10_000_000
    assert total == 10_000_000 * 9_999_999 // 2


@pytest.mark.parametrize(
    "sql, kind, words",
    [
        ("SELECT * FROM tt", (dbapi.ProgrammingError, dbapi.InternalError, dbapi.OperationalError), ["tt", "hint", "t"]),
        ("SELEC 1", dbapi.ProgrammingError, ["line 1"]),
        ("SELECT nothing FROM t", (dbapi.ProgrammingError, dbapi.InternalError), ["nothing"]),
        ("SELECT 1 / (a - 1) FROM t", dbapi.ProgrammingError, ["zero"]),
        ("DROP TABLE no_such_table", (dbapi.ProgrammingError, dbapi.InternalError), ["no_such_table"]),
    ],
)
def test_errors_say_what_is_wrong(connection, sql, kind, words):
    with pytest.raises(dbapi.Error) as failure:
        rows(connection, sql)
    assert isinstance(failure.value, kind), repr(failure.value)
    text = str(failure.value).lower()
    assert all(word in text for word in words), text
    assert "panicked" not in text
    assert rows(connection, "SELECT 1") == [(1,)], "the connection goes on"


def test_not_found_and_unauthenticated_are_told_apart(connection):
    with pytest.raises(dbapi.Error) as failure:
        rows(connection, "SELECT * FROM no_such_table")
    assert failure.value.status_code in (
        adbc_driver_manager.AdbcStatusCode.NOT_FOUND,
        adbc_driver_manager.AdbcStatusCode.INVALID_ARGUMENT,
    )


def test_cancel(server, connection):
    slow = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b WHERE a.value * b.value % 7 = 3"
    sql = "SELECT state FROM system.queries WHERE sql LIKE 'SELECT count(*) FROM range(1000000) a CROSS JOIN%' ORDER BY state"
    done = threading.Event()

    def cancel(cursor):
        """What is cancelled before the server runs it may begin all the same."""
        with dbapi.connect(server.uri, autocommit=True) as observer:
            while ("Running",) not in rows(observer, sql) and not done.wait(0.05):
                pass
        while not done.wait(0.5):
            cursor.adbc_cancel()

    with connection.cursor() as cursor:
        thread = threading.Thread(target=cancel, args=(cursor,))
        thread.start()
        begin = time.monotonic()
        try:
            with pytest.raises(dbapi.Error):
                cursor.execute(slow)
                cursor.fetchall()
        finally:
            done.set()
            thread.join()
        assert time.monotonic() - begin < 60
    deadline = time.monotonic() + 60
    while (states := {row[0] for row in rows(connection, sql)}) != {"Cancelled"}:
        assert time.monotonic() < deadline, states
        time.sleep(0.1)


def test_closing_a_half_read_result(connection):
    for _ in range(5):
        with connection.cursor() as cursor:
            cursor.execute("SELECT a.value FROM range(10000000) a CROSS JOIN range(1000) b")
            cursor.fetchone()
    assert rows(connection, "SELECT 1") == [(1,)]


def test_several_cursors_at_once(connection):
    failures = []

    def work(index):
        try:
            for _ in range(5):
                assert rows(connection, f"SELECT {index} + a FROM t WHERE a = 1") == [(index + 1,)]
        except Exception as failure:  # noqa: BLE001 - shown below
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_substrait_and_ingest_are_refused_plainly(connection):
    table = pyarrow.table({"a": [1, 2]})
    with connection.cursor() as cursor:
        with pytest.raises(dbapi.Error) as failure:
            cursor.adbc_ingest("ingested", table)
    assert "panicked" not in str(failure.value)
    assert rows(connection, "SELECT 1") == [(1,)]


def trusting(secured):
    return {DatabaseOptions.TLS_ROOT_CERTS.value: secured.certificate.read_text()}


def test_user_and_password_over_tls(secured):
    options = trusting(secured) | {"username": USER, "password": PASSWORD}
    with dbapi.connect(secured.uri, db_kwargs=options) as connection:
        assert rows(connection, "SELECT 1") == [(1,)]
        with connection.cursor() as cursor:
            cursor.execute("SET trireme.batch_rows = 99")
        assert rows(connection, "SHOW trireme.batch_rows")[0][-1] == "99"


@pytest.mark.parametrize("user, password", [(USER, "wrong"), ("nobody", PASSWORD), (None, None)])
def test_wrong_credentials(secured, user, password):
    options = trusting(secured)
    if user:
        options |= {"username": user, "password": password}
    with pytest.raises(dbapi.Error) as failure:
        with dbapi.connect(secured.uri, db_kwargs=options) as connection:
            rows(connection, "SELECT 1")
    assert failure.value.status_code == adbc_driver_manager.AdbcStatusCode.UNAUTHENTICATED, repr(failure.value)
    assert PASSWORD not in str(failure.value)


def test_an_untrusted_certificate_is_refused_by_the_client(secured):
    with pytest.raises(dbapi.Error):
        with dbapi.connect(secured.uri, db_kwargs={"username": USER, "password": PASSWORD}) as connection:
            rows(connection, "SELECT 1")


def test_a_kept_plan_describes_until_its_file_changes(server, connection):
    """The driver prepares every statement: from the third of a shape on its description comes from the plan cache."""

    def described(values, least):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT x + 1 AS y FROM described WHERE x > {least}")
            table = cursor.fetch_arrow_table()
        assert sorted(table.column("y").to_pylist()) == [value + 1 for value in values if value > least]
        return table.schema.field("y").type

    path = server.data / "described.parquet"
    parquet.write_table(pyarrow.table({"x": pyarrow.array([1, 2, 3], pyarrow.int32())}), path)
    kept = "SELECT coalesce(max(hits), 0) FROM system.plans WHERE shape LIKE '%described%'"
    # The shape is learned beside the next query.
    deadline = time.monotonic() + 60
    least = 0
    while least < 6 or rows(connection, kept)[0][0] == 0:
        assert time.monotonic() < deadline, "no plan is kept"
        assert described([1, 2, 3], least % 3) == pyarrow.int64()
        least += 1
        time.sleep(0.1)
    parquet.write_table(pyarrow.table({"x": pyarrow.array([1.5, 2.5], pyarrow.float64())}), path)
    for least in range(3):
        assert described([1.5, 2.5], least) == pyarrow.float64()
        time.sleep(0.1)
