"""SQLAlchemy through flightsql-dbapi, in a venv of its own (its dialect needs SQLAlchemy below 2)."""

import pytest

sqlalchemy = pytest.importorskip("sqlalchemy", reason="runs in the SQLAlchemy venv")
pytest.importorskip("flightsql", reason="runs in the SQLAlchemy venv")

import flightsql  # noqa: E402
import flightsql.sqlalchemy  # noqa: E402, F401 - registers the dialect


@pytest.fixture(scope="module")
def engine(server):
    url = f"datafusion+flightsql://127.0.0.1:{server.port}?insecure=True"
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT value AS a, 'n' || value AS s FROM range(10)")
        connection.execute("CREATE VIEW v AS SELECT a FROM t")
    yield engine
    engine.dispose()


def test_query(engine):
    with engine.connect() as connection:
        result = connection.execute("SELECT a, s FROM t WHERE a < 3 ORDER BY a")
        assert [tuple(row) for row in result] == [(0, "n0"), (1, "n1"), (2, "n2")]


def test_core_expressions(engine):
    table = sqlalchemy.Table("t", sqlalchemy.MetaData(), sqlalchemy.Column("a", sqlalchemy.BigInteger))
    count = sqlalchemy.select([sqlalchemy.func.count()]).select_from(table)
    with engine.connect() as connection:
        assert connection.execute(count).scalar() == 10


def test_inspection(engine):
    inspector = sqlalchemy.inspect(engine)
    assert {"public", "information_schema", "system"} <= set(inspector.get_schema_names())
    assert "t" in inspector.get_table_names(schema="public")
    names = [column["name"] for column in inspector.get_columns("t", schema="public")]
    assert names == ["a", "s"]


def test_empty_result(engine):
    with engine.connect() as connection:
        assert connection.execute("SELECT a FROM t WHERE false").fetchall() == []


def test_errors(engine):
    with engine.connect() as connection:
        with pytest.raises(Exception, match="no_such_table"):
            connection.execute("SELECT * FROM no_such_table").fetchall()


def test_dbapi(server, engine):
    client = flightsql.FlightSQLClient(host="127.0.0.1", port=server.port, insecure=True)
    connection = flightsql.connect(client)
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM t")
    assert cursor.fetchone()[0] == 10
    info = client.get_tables(include_schema=True)
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert "t" in table.column("table_name").to_pylist()
