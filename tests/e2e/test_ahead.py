"""Queries over a remote table whose files change between them: each sees the files that are there when it is sent, although
it is planned with those that the one before saw."""

import io
import re
import time
import urllib.request

import adbc_driver_flightsql.dbapi as dbapi
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
from trireme import Server


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.fixture
def store():
    with stores.Simstore() as store:
        store.create("lake")
        yield store


def rows(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def changed_ahead(server) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=60) as answer:
        return int(re.search(r"^trireme_catalog_changed_ahead_total (\d+)", answer.read().decode(), re.MULTILINE)[1])


def test_files_that_come_change_and_go_are_seen_at_once(store, tmp_path):
    store.put("lake", "t/0.parquet", parquet(x=[1]))
    arguments = ["--set", f"io.allowed_locations=s3://lake,{store.address}"]
    with Server(tmp_path, arguments) as server, dbapi.connect(server.uri, autocommit=True) as connection:
        options = f"'aws.endpoint' '{store.address}', 'aws.allow_http' 'true', 'aws.region' 'x', "
        options += "'aws.access_key_id' 'k', 'aws.secret_access_key' 's'"
        rows(connection, f"CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://lake/t/' OPTIONS ({options})")
        there = {0: 1}
        for turn in range(24):
            # What is steady is planned ahead; then a file comes, changes or goes.
            for _ in range(2):
                expected = [(sum(there.values()), len(there))]
                assert rows(connection, "SELECT sum(x), count(*) FROM t") == expected, turn
            key = turn % 5
            if turn % 7 == 6 and key in there and len(there) > 1:
                stores.send("DELETE", f"{store.address}/lake/t/{key}.parquet")
                del there[key]
            else:
                there[key] = turn + 10
                store.put("lake", f"t/{key}.parquet", parquet(x=[turn + 10]))
        # Counters are set once a second.
        deadline = time.monotonic() + 60
        while changed_ahead(server) == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert changed_ahead(server) > 0


def test_columns_that_change_are_the_new_ones(store, tmp_path):
    store.put("lake", "t/0.parquet", parquet(x=[1, 2]))
    arguments = ["--set", f"io.allowed_locations=s3://lake,{store.address}"]
    with Server(tmp_path, arguments) as server, dbapi.connect(server.uri, autocommit=True) as connection:
        options = f"'aws.endpoint' '{store.address}', 'aws.allow_http' 'true', 'aws.region' 'x', "
        options += "'aws.access_key_id' 'k', 'aws.secret_access_key' 's'"
        rows(connection, f"CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://lake/t/' OPTIONS ({options})")
        for _ in range(2):
            assert rows(connection, "SELECT sum(x) FROM t") == [(3,)]
        store.put("lake", "t/0.parquet", parquet(x=[0.5, 1.0], y=["a", "b"]))
        # The result's type was promised before the change was seen: an error that says so, once, or the new rows.
        try:
            first = rows(connection, "SELECT sum(x) FROM t")
            assert first == [(1.5,)]
        except dbapi.Error as error:
            assert "send the statement again" in str(error)
        assert rows(connection, "SELECT sum(x), max(y) FROM t") == [(1.5, "b")]


def test_scans_of_both_variants_say_what_they_have_read(store, tmp_path):
    store.put("lake", "t/0.parquet", parquet(x=list(range(1000))))
    arguments = ["--set", f"io.allowed_locations=s3://lake,{store.address}", "--set", "exec.column_cache=false"]
    with Server(tmp_path, arguments) as server, dbapi.connect(server.uri, autocommit=True) as connection:
        options = f"'aws.endpoint' '{store.address}', 'aws.allow_http' 'true', 'aws.region' 'x', "
        options += "'aws.access_key_id' 'k', 'aws.secret_access_key' 's'"
        rows(connection, f"CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://lake/t/' OPTIONS ({options})")
        for variant in ("fused", "datafusion"):
            rows(connection, f"SET trireme.cpu_variant = '{variant}'")
            plan = "\n".join(str(row) for row in rows(connection, "EXPLAIN ANALYZE SELECT sum(x) FROM t"))
            assert re.search(r"used_bytes=\d", plan) and "memory_tier_bytes=" in plan, (variant, plan)
