"""Files and table formats: the examples of docs/formats.md, tables that Spark wrote, and files that change under a query.

`data/spark-tables.tar.gz` has Delta tables as Spark 4.1 with Delta 4.2 wrote them: deletion vectors, column mapping, partition columns,
checkpoints of both versions, widened types. What DuckDB's delta extension reads from them is in `data/spark-tables.json`.
"""

import datetime
import decimal
import json
import math
import os
import pathlib
import tarfile
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
import test_stores as pages
from adbc_driver_flightsql import dbapi
from trireme import Server

DATA = pathlib.Path(__file__).parent / "data"
CASES = json.loads((DATA / "spark-tables.json").read_text())


def spark_tables(folder):
    with tarfile.open(DATA / "spark-tables.tar.gz") as archive:
        archive.extractall(folder, filter="data")


def plain(value):
    """As `spark-tables.json` has it."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else round(value, 6)
    if isinstance(value, decimal.Decimal):
        return round(float(value), 6)
    if hasattr(value, "isoformat"):
        return (value.replace(tzinfo=None) if hasattr(value, "tzinfo") else value).isoformat()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spark")
    spark_tables(folder)
    with Server(folder) as server, dbapi.connect(server.uri, autocommit=True) as connection:
        yield connection.cursor()


@pytest.fixture
def cursor(tmp_path):
    with Server(tmp_path) as server, dbapi.connect(server.uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.folder = tmp_path
            yield cursor


def rows(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchall()


def explained(cursor, sql):
    return "\n".join(str(row[-1]) for row in rows(cursor, f"EXPLAIN {sql}"))


def test_page(tmp_path):
    lake, data = tmp_path / "lake", tmp_path / "data"
    spark_tables(lake)
    pages.write(data, pages.files())
    config = tmp_path / "trireme.toml"
    config.write_text(f'[io]\nallowed_locations = ["{lake}"]\n')
    fenced = pages.blocks("../formats", {"/srv/lake": str(lake)})
    ran = 0
    with Server(data, ["--config", str(config)]) as server:
        for (language, marks, body), (following, _, wanted) in zip(fenced, [*fenced[1:], ("", [], "")]):
            if language != "sql" or "tested" not in marks:
                continue
            ran += 1
            done = pages.trisql(server, body)
            assert following == "text"
            said = done.stderr if "error" in marks else done.stdout
            assert (done.returncode != 0) == ("error" in marks), f"{body}\n{done.stderr}"
            assert pages.printed(wanted) in pages.printed(said), f"{body}\n{said}"
    assert ran >= 5


@pytest.mark.parametrize("variant", ["auto", "datafusion"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["sql"])
def test_tables_of_spark(spark, variant, case):
    spark.execute(f"SET trireme.cpu_variant = '{variant}'")
    assert plain(rows(spark, case["sql"])) == case["rows"]


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """The same tables as objects of an S3 store."""
    folder = tmp_path_factory.mktemp("copy")
    spark_tables(folder)
    with stores.Moto() as moto:
        moto.create("lake")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            moto.put("lake", f"tables/{path.relative_to(folder)}", path.read_bytes())
        allowed = f"io.allowed_locations=s3://lake,{moto.address}"
        options = {"endpoint": moto.address, "allow_http": "true", "region": "us-east-1"}
        options |= {"access_key_id": "test", "secret_access_key": "test"}
        pairs = ", ".join(f"'aws.{key}' '{value}'" for key, value in options.items())
        with (
            Server(tmp_path_factory.mktemp("data"), ["--set", allowed]) as server,
            dbapi.connect(server.uri, autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            for table in ["dv", "dvp", "mapped", "v2"]:
                cursor.execute(
                    f"CREATE EXTERNAL TABLE {table} STORED AS DELTA LOCATION 's3://lake/tables/{table}/' OPTIONS ({pairs})"
                )
            cursor.store = moto
            yield cursor


@pytest.mark.parametrize("variant", ["auto", "datafusion"])
def test_tables_of_spark_in_a_store(remote, variant):
    remote.execute(f"SET trireme.cpu_variant = '{variant}'")
    cases = [case for case in CASES if any(f"FROM {table} " in case["sql"] + " " for table in ["dv", "dvp", "mapped", "v2"])]
    assert len(cases) > 20
    for case in cases:
        assert plain(rows(remote, case["sql"])) == case["rows"], case["sql"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT part, sum(v) FROM dvp GROUP BY part",
        "SELECT p2, sum(added) FROM mapped GROUP BY p2",
        "SELECT sum(price) FROM dv WHERE d = DATE '2024-02-01'",
        "SELECT k, sum(id) FROM v2 GROUP BY k",
    ],
)
def test_what_is_fused(spark, sql):
    spark.execute("SET trireme.cpu_variant = 'auto'")
    assert "FragmentExec" in explained(spark, sql)


def test_versions_of_a_table_of_spark(spark):
    assert rows(spark, "SELECT count(*), sum(id) FROM versions") == [(9, 63)]
    assert rows(spark, "SELECT count(*) FROM versions VERSION AS OF 3") == [(3,)]
    with pytest.raises(Exception, match="no version 99"):
        rows(spark, "SELECT * FROM versions VERSION AS OF 99")


@pytest.mark.parametrize("variant", ["auto", "fused", "datafusion"])
def test_two_versions_with_the_same_files_in_one_query(spark, variant):
    """They differ in which rows of a file were deleted."""
    spark.execute(f"SET trireme.cpu_variant = '{variant}'")
    (count, total), (left, rest) = (rows(spark, f"SELECT count(id), sum(id) FROM dv VERSION AS OF {number}")[0] for number in (3, 4))
    assert count > left
    both = "SELECT id FROM dv VERSION AS OF 3 EXCEPT SELECT id FROM dv VERSION AS OF 4"
    assert rows(spark, f"SELECT count(id), sum(id) FROM ({both})") == [(count - left, total - rest)]
    sums = [f"(SELECT sum(id) FROM dv VERSION AS OF {number})" for number in (3, 4)]
    assert rows(spark, f"SELECT {sums[0]} - {sums[1]}") == [(total - rest,)]


def test_the_log_prunes_files_and_answers_counts(spark):
    spark.execute("SET trireme.cpu_variant = 'datafusion'")
    assert "ParquetExec" not in explained(spark, "SELECT count(*) FROM dv")
    assert "DataSourceExec" not in explained(spark, "SELECT count(*) FROM dvp WHERE day = DATE '2024-01-02'")
    whole = explained(spark, "SELECT sum(v) FROM dvp").count(".parquet")
    one = explained(spark, "SELECT sum(v) FROM dvp WHERE part = 'a/b c' AND day = DATE '2024-01-02' AND v >= 500")
    assert 0 < one.count(".parquet") < whole
    assert ".parquet" not in explained(spark, "SELECT sum(v) FROM dvp WHERE v > 100000")


@pytest.mark.parametrize("variant", ["auto", "fused", "datafusion"])
def test_conditions_of_partitions_fail_for_no_file_that_is_left_out(cursor, variant):
    table = pa.table({"k": [0, 1, 2, 5], "x": [1, 2, 3, 4]})
    pq.write_to_dataset(table, cursor.folder / "parts", partition_cols=["k"])
    cursor.execute(f"SET trireme.cpu_variant = '{variant}'")
    cursor.execute("CREATE EXTERNAL TABLE numbers (x BIGINT, k BIGINT) STORED AS PARQUET PARTITIONED BY (k) LOCATION 'parts/'")
    try:
        assert rows(cursor, "SELECT k FROM numbers WHERE k <> 0 AND 10 / k > 2 ORDER BY k") == [(1,), (2,)]
        assert rows(cursor, "SELECT k FROM numbers WHERE k = 0 OR 10 / k > 5 ORDER BY k") == [(0,), (1,)]
        assert rows(cursor, "SELECT k FROM numbers WHERE x > 100 AND 10 / k > 1") == []
        with pytest.raises(Exception, match="division by zero"):
            rows(cursor, "SELECT k FROM numbers WHERE 10 / k > 5")
    finally:
        cursor.execute("DROP TABLE numbers")


@pytest.mark.parametrize("variant", ["auto", "datafusion"])
def test_line_ends_within_texts_of_large_files(cursor, variant):
    text = "7,x\n" * 50
    with open(cursor.folder / "lines.csv", "w") as file:
        file.write("i,text\n" + "".join(f'{row},"{text}"\n' for row in range(10_000)))
    cursor.execute(f"SET trireme.cpu_variant = '{variant}'")
    found = rows(cursor, "SELECT count(*), count(DISTINCT i), sum(i), min(text) = max(text) FROM lines")
    assert found == [(10_000, 10_000, sum(range(10_000)), True)]


@pytest.mark.parametrize("variant", ["auto", "fused", "datafusion"])
def test_old_timestamps_reach_further_than_nanoseconds(cursor, variant):
    """Spark writes INT96 unless told otherwise."""
    folder = cursor.folder / "int96"
    folder.mkdir()
    moments = [datetime.datetime(9999, 12, 31), datetime.datetime(1, 1, 1), datetime.datetime(2024, 2, 29, 12, 0, 0, 7)]
    table = pa.table({"t": pa.array(moments, pa.timestamp("us"))})
    pq.write_table(table, folder / "part.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    schema = {"type": "struct", "fields": [{"name": "t", "type": "timestamp", "nullable": True, "metadata": {}}]}
    size = (folder / "part.parquet").stat().st_size
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "x", "format": {"provider": "parquet", "options": {}}, "schemaString": json.dumps(schema), "partitionColumns": [], "configuration": {}, "createdTime": 1}},
        {"add": {"path": "part.parquet", "partitionValues": {}, "size": size, "modificationTime": 1, "dataChange": True}},
    ]
    (folder / "_delta_log").mkdir()
    (folder / "_delta_log/00000000000000000000.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    cursor.execute(f"SET trireme.cpu_variant = '{variant}'")
    cursor.execute("CREATE EXTERNAL TABLE moments STORED AS DELTA LOCATION 'int96/'")
    try:
        found = rows(cursor, "SELECT t FROM moments ORDER BY t")
        assert [moment.replace(tzinfo=None) for (moment,) in found] == sorted(moments)
    finally:
        cursor.execute("DROP TABLE moments")


@pytest.mark.parametrize("variant", ["auto", "datafusion"])
def test_partitions_prune_before_files_are_opened(cursor, variant):
    """A file that can't be read is in the way of nobody who doesn't ask for it."""
    for index in range(20):
        path = cursor.folder / f"files/day=2026-01-{index + 1:02}/part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"x": [index, index + 1]}), path)
    (cursor.folder / "files/day=2026-01-05/part.parquet").write_bytes(b"PAR1 damaged PAR1")
    cursor.execute(f"SET trireme.cpu_variant = '{variant}'")
    cursor.execute(
        "CREATE EXTERNAL TABLE days (x BIGINT, day DATE) STORED AS PARQUET PARTITIONED BY (day) LOCATION 'files/'"
    )
    with pytest.raises(Exception, match="day=2026-01-05/part.parquet"):
        rows(cursor, "SELECT sum(x) FROM days")
    sql = "SELECT sum(x) FROM days WHERE day > DATE '2026-01-05' AND day <= DATE '2026-01-07'"
    assert rows(cursor, sql) == [(24,)]
    assert rows(cursor, sql) == [(24,)]
    assert rows(cursor, sql.replace("01-07", "01-06")) == [(11,)]


def test_null_partitions_and_spellings(cursor):
    for name in ["month=1", "month=01", "month=__HIVE_DEFAULT_PARTITION__"]:
        path = cursor.folder / f"t/{name}/a.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), path)
    assert rows(cursor, "SELECT month, count(*) FROM t GROUP BY month ORDER BY 1") == [(1, 2), (None, 1)]
    assert rows(cursor, "SELECT count(*) FROM t WHERE month = 1") == [(2,)]
    assert rows(cursor, "SELECT count(*) FROM t WHERE month IS NULL") == [(1,)]


def test_unknown_features_are_named(spark):
    with pytest.raises(Exception, match="table public.widened uses Delta features that can't be read: .*[Tt]ype.?[Ww]idening"):
        rows(spark, "SELECT * FROM widened")


def test_iceberg_is_refused(cursor):
    pages.write(cursor.folder, {"ice/metadata/v1.metadata.json": b"{}", "ice/data/a.parquet": b"PAR1"})
    with pytest.raises(Exception, match="Iceberg tables can't be read yet"):
        rows(cursor, "SELECT * FROM ice")


def test_a_table_made_anew_in_the_same_place(cursor):
    spark_tables(cursor.folder / "all")
    (cursor.folder / "all/versions").rename(cursor.folder / "t")
    assert rows(cursor, "SELECT count(*) FROM t") == [(9,)]
    (cursor.folder / "t").rename(cursor.folder / "old")
    (cursor.folder / "all/v2").rename(cursor.folder / "t")
    assert rows(cursor, "SELECT count(*) FROM t") == [(int(rows(cursor, "SELECT count(*) FROM t")[0][0]),)]
    assert [column[0] for column in cursor.description] == ["count(*)"]
    cursor.execute("SELECT * FROM t LIMIT 1")
    assert [column[0] for column in cursor.description] == ["id", "k"]


@pytest.mark.parametrize("variant", ["auto", "datafusion"])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_replaced_under_queries(cursor, kind, variant):
    """All rows of a file between two that are in every file have one value, so that no statistics tell files apart; files are
    replaced by others of the same size, by renames and in place."""
    cursor.execute(f"SET trireme.cpu_variant = '{variant}'")
    count = 60_000
    path = cursor.folder / f"t.{kind}"

    def write(value, target):
        values = ([0] + [value] * 4_998 + [10]) * (count // 5_000)
        if kind == "csv":
            target.write_text("x\n" + "".join(f"{value}\n" for value in values))
        else:
            table = pa.table({"x": pa.array(values, pa.int64())})
            pq.write_table(table, target, row_group_size=5_000, use_dictionary=False, compression="none")

    write(1, path)
    stop = threading.Event()

    def replace():
        value = 1
        while not stop.is_set():
            value = 1 + value % 9
            if value % 2:
                write(value, path)
            else:
                write(value, cursor.folder / f".{kind}.new")
                os.replace(cursor.folder / f".{kind}.new", path)
            time.sleep(0.01)

    writer = threading.Thread(target=replace)
    writer.start()
    read = failed = 0
    try:
        end = time.monotonic() + 4
        # On a busy machine it may take longer until one is not disturbed.
        while time.monotonic() < (end if read else end + 56):
            try:
                [(low, high, all_rows)] = rows(cursor, "SELECT min(x), max(x), count(x) FROM t WHERE x BETWEEN 1 AND 9")
            except Exception as error:
                failed += 1
                text = str(error)
                assert any(
                    word in text
                    for word in ("replaced", "can't be read", "can't decode", "does not exist", "no files", "damaged", "range was invalid")
                ), text
                continue
            if all_rows == 0:
                continue
            read += 1
            assert low == high, f"a mixture of {low} and {high}"
    finally:
        stop.set()
        writer.join()
    assert read > 0
    time.sleep(0.05)
    assert len(rows(cursor, "SELECT DISTINCT x FROM t WHERE x BETWEEN 1 AND 9")) == 1
