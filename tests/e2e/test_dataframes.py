"""pandas and polars over ADBC, and pyarrow's own Flight client."""

import adbc_driver_flightsql.dbapi as dbapi
import pandas
import polars
import pyarrow.flight
import pytest


@pytest.fixture(scope="module")
def connection(server):
    with dbapi.connect(server.uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t AS SELECT value AS a, value * 0.5 AS b, 'n' || (value % 3) AS s FROM range(1000)")
        yield connection


def test_pandas_read_sql(connection):
    frame = pandas.read_sql("SELECT a, b, s FROM t ORDER BY a", connection)
    assert frame.shape == (1000, 3)
    assert frame["a"].sum() == 499500
    assert frame["s"].nunique() == 3


def test_pandas_read_sql_empty(connection):
    frame = pandas.read_sql("SELECT a, s FROM t WHERE false", connection)
    assert list(frame.columns) == ["a", "s"]
    assert frame.empty


def test_polars_read_database(connection):
    frame = polars.read_database("SELECT s, count(*) AS n, sum(b) AS b FROM t GROUP BY s ORDER BY s", connection)
    assert frame.columns == ["s", "n", "b"]
    assert frame["n"].to_list() == [334, 333, 333]


def test_polars_read_database_with_parameters(connection):
    for sql in ("SELECT a FROM t WHERE a = ?", "SELECT a FROM t WHERE a = $1"):
        frame = polars.read_database(sql, connection, execute_options={"parameters": (5,)})
        assert frame["a"].to_list() == [5]


def test_arrow_table_keeps_types(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT a, s, [a] AS l, named_struct('x', a) AS st FROM t WHERE a = 1")
        table = cursor.fetch_arrow_table()
    assert table.to_pylist() == [{"a": 1, "s": "n1", "l": [1], "st": {"x": 1}}]


def test_plain_flight_client_gets_errors_as_errors(server):
    client = pyarrow.flight.connect(f"grpc+tcp://127.0.0.1:{server.port}")
    with pytest.raises(pyarrow.lib.ArrowException):
        client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(b"nonsense"))
    with pytest.raises(pyarrow.lib.ArrowException):
        client.do_get(pyarrow.flight.Ticket(b"nonsense")).read_all()
    with pytest.raises(pyarrow.lib.ArrowException):
        list(client.do_action(pyarrow.flight.Action("nonsense", b"")))
    assert [action.type for action in client.list_actions()]
