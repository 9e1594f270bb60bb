"""Another engine over a simulated S3 store, in a process of its own: lines of JSON in, lines of JSON out.

The first line is {"engine": "datafusion" | "duckdb" | "pyarrow", "endpoint", "bucket", "tables": {name: key}}; each further
one is {"sql"}, and is answered by {"seconds", "rows"}. pyarrow understands sums of all columns of one table only.
"""

import json
import re
import sys
import time

REGION = "us-east-1"
KEY, SECRET = "key", "secret"


class DataFusion:
    """As its Python package comes, with its own object store client."""

    def __init__(self, endpoint, bucket, tables):
        import datafusion
        from datafusion.object_store import AmazonS3

        self.version = datafusion.__version__
        store = AmazonS3(
            bucket_name=bucket,
            region=REGION,
            access_key_id=KEY,
            secret_access_key=SECRET,
            endpoint=endpoint,
            allow_http=True,
        )
        self.context = datafusion.SessionContext()
        self.context.register_object_store("s3://", store, bucket)
        for name, key in tables.items():
            self.context.register_parquet(name, f"s3://{bucket}/{key}")

    def run(self, sql):
        batches = self.context.sql(sql).collect()
        return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


class DuckDb:
    """With its extension for object stores, from the package of that name."""

    def __init__(self, endpoint, bucket, tables):
        import duckdb
        import duckdb_extension_httpfs

        self.version = duckdb.__version__
        folder = duckdb_extension_httpfs.__path__[0]
        self.connection = duckdb.connect()
        self.connection.execute(f"LOAD '{folder}/extensions/v{self.version}/httpfs.duckdb_extension'")
        address = endpoint.removeprefix("http://")
        self.connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{KEY}', SECRET '{SECRET}', REGION '{REGION}', "
            f"ENDPOINT '{address}', URL_STYLE 'path', USE_SSL false)"
        )
        for name, key in tables.items():
            pattern = key + "*.parquet" if key.endswith("/") else key
            self.connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('s3://{bucket}/{pattern}')")

    def run(self, sql):
        return self.connection.execute(sql).fetchall()


class PyArrow:
    """Its datasets over its S3 file system."""

    def __init__(self, endpoint, bucket, tables):
        import pyarrow
        from pyarrow import dataset, fs

        self.version = pyarrow.__version__
        files = fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, region=REGION, scheme="http", endpoint_override=endpoint.removeprefix("http://")
        )
        self.tables = {
            name: dataset.dataset(f"{bucket}/{key}".rstrip("/"), filesystem=files, format="parquet")
            for name, key in tables.items()
        }

    def run(self, sql):
        import pyarrow.compute as compute

        columns = re.findall(r"sum\((\w+)\)", sql)
        table = self.tables[re.search(r"FROM (\w+)", sql).group(1)]
        sums = dict.fromkeys(columns, 0.0)
        for batch in table.to_batches(columns=columns):
            for name in columns:
                sums[name] += compute.sum(batch.column(name)).as_py() or 0.0
        return [tuple(sums[name] for name in columns)]


ENGINES = {"datafusion": DataFusion, "duckdb": DuckDb, "pyarrow": PyArrow}


def answer(engine, message):
    begin = time.perf_counter()
    rows = engine.run(message["sql"])
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "rows": [[str(value) for value in row] for row in rows[:100]]}


def main():
    engine = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if engine is None:
                name = message.pop("engine")
                engine = ENGINES[name](**message)
                reply = {"version": engine.version}
            else:
                reply = answer(engine, message)
        except BaseException as error:  # noqa: BLE001  (DataFusion's panics are no exceptions)
            reply = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
