"""Secrets end to end: tables over S3 that only the right secret opens, and values that stand nowhere.

The store is moto with its checks of signatures and policies on. Skipped where moto isn't installed (`setup.sh stores`).
"""

import base64
import json
import pathlib
import re
import urllib.parse

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stores import Moto, send, tools_folder
from trireme import Server

pytestmark = pytest.mark.skipif(
    not (tools_folder() / "moto/bin/moto_server").exists(), reason="moto is not installed: tests/e2e/setup.sh stores"
)

BUCKET = "lake"
READER = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
BECOME = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}


class Guarded(Moto):
    """Moto with users: whoever has no key, or a wrong one, is refused."""

    def __init__(self):
        super().__init__()
        self.create(BUCKET)
        self.put(BUCKET, "raw/t.parquet", parquet([1, 2, 3]))
        self.put(BUCKET, "other/t.parquet", parquet([10, 20]))
        self.put(BUCKET, "delta/p.parquet", parquet([100, 200]))
        self.put(BUCKET, "delta/_delta_log/00000000000000000000.json", delta_log("p.parquet", len(parquet([100, 200]))))
        self.reader = self.user("reader", READER)
        self.nobody = self.user("nobody", None)
        self.climber = self.user("climber", BECOME)
        self.role = self.iam("CreateRole", RoleName="lake", AssumeRolePolicyDocument=json.dumps(TRUST))["Arn"]
        self.iam("PutRolePolicy", RoleName="lake", PolicyName="p", PolicyDocument=json.dumps(READER))
        send("POST", f"{self.address}/moto-api/reset-auth", b"0", {"content-type": "text/plain"})

    def iam(self, action, **arguments):
        """Calls IAM; gives the elements of the answer."""
        body = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08"} | arguments).encode()
        scope = "AWS4-HMAC-SHA256 Credential=mock/20240101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x"
        headers = {"authorization": scope, "content-type": "application/x-www-form-urlencoded"}
        text = send("POST", self.address, body, headers).decode()
        return dict(re.findall(r"<(\w+)>([^<]+)</\1>", text))

    def user(self, name, policy):
        """A new user's key and secret."""
        self.iam("CreateUser", UserName=name)
        if policy:
            self.iam("PutUserPolicy", UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = self.iam("CreateAccessKey", UserName=name)
        return key["AccessKeyId"], key["SecretAccessKey"]


def parquet(values):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"v": values}), sink)
    return sink.getvalue().to_pybytes()


def delta_log(path, size):
    """The first commit of a Delta table with one file of the column `v`."""
    column = {"name": "v", "type": "long", "nullable": True, "metadata": {}}
    schema = json.dumps({"type": "struct", "fields": [column]})
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {
            "metaData": {
                "id": "00000000-0000-0000-0000-000000000001",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": schema,
                "partitionColumns": [],
                "configuration": {},
                "createdTime": 0,
            }
        },
        {"add": {"path": path, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": True}},
    ]
    return "\n".join(json.dumps(action) for action in actions).encode()


@pytest.fixture(scope="module")
def store():
    with Guarded() as running:
        yield running


def settings(store, **more):
    allowed = [f"s3://{BUCKET}", store.address]
    given = {"io.allowed_locations": ",".join(allowed)} | more
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


def connect(server):
    return flightsql.connect(server.uri, autocommit=True)


def run(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def secret_sql(store, name, key, more=""):
    return (
        f"CREATE OR REPLACE SECRET {name} (TYPE s3, KEY_ID '{key[0]}', SECRET '{key[1]}', "
        f"ENDPOINT '{store.address}', REGION 'us-east-1'{more})"
    )


def table_sql(name, path, options=""):
    return f"CREATE OR REPLACE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION 's3://{BUCKET}/{path}' {options}"


def refusal(connection, sql):
    with pytest.raises(flightsql.Error) as caught:
        run(connection, sql)
    return str(caught.value)


@pytest.fixture
def served(store, tmp_path):
    with Server(tmp_path / "data", settings(store)) as server, connect(server) as connection:
        yield server, connection
        everything = server.log() + "".join(text_of(file) for file in files(tmp_path) if file.name != "secrets.json")
        for _, value in (store.reader, store.nobody, store.climber):
            assert value not in everything


def files(folder):
    return [file for file in pathlib.Path(folder).rglob("*") if file.is_file()]


def text_of(file):
    return file.read_bytes().decode(errors="replace")


def test_only_the_right_secret_opens_a_table(store, served):
    _, connection = served
    run(connection, secret_sql(store, "reader", store.reader))
    # A folder: a refused listing has a code, which an answer without a body (HEAD) has not.
    run(connection, table_sql("t", "raw/", "OPTIONS (secret 'reader')"))
    assert run(connection, "SELECT sum(v) FROM t") == [(6,)]
    # The same name with credentials that are refused: the table says so, by name.
    run(connection, secret_sql(store, "reader", store.nobody))
    said = refusal(connection, "SELECT sum(v) FROM t")
    assert "PERMISSION" in said.upper() and "secret reader gives no access" in said and "AccessDenied" in said
    wrong = (store.reader[0], "w" * 40)
    run(connection, secret_sql(store, "reader", wrong))
    said = refusal(connection, "SELECT sum(v) FROM t")
    assert "secret reader gives no access" in said and "SignatureDoesNotMatch" in said and wrong[1] not in said
    run(connection, secret_sql(store, "reader", store.reader))
    assert run(connection, "SELECT sum(v) FROM t") == [(6,)]
    run(connection, "DROP SECRET reader")
    said = refusal(connection, "SELECT sum(v) FROM t")
    assert "PERMISSION" in said.upper() and "secret reader does not exist" in said


def test_the_closest_scope_is_taken(store, served):
    _, connection = served
    run(connection, secret_sql(store, "all", store.nobody, f", SCOPE 's3://{BUCKET}'"))
    run(connection, secret_sql(store, "raw", store.reader, f", SCOPE 's3://{BUCKET}/raw'"))
    run(connection, table_sql("t", "raw/t.parquet"))
    assert run(connection, "SELECT sum(v) FROM t") == [(6,)]
    assert "secret all gives no access" in refusal(connection, table_sql("u", "other/t.parquet"))
    said = refusal(connection, table_sql("u", "other/t.parquet", "OPTIONS (secret 'raw')"))
    assert f"secret raw is for s3://{BUCKET}/raw only" in said
    # Both at a time: two stores of one bucket.
    run(connection, secret_sql(store, "all", store.reader, f", SCOPE 's3://{BUCKET}'"))
    run(connection, table_sql("u", "other/t.parquet"))
    assert run(connection, "SELECT (SELECT sum(v) FROM t) + (SELECT sum(v) FROM u)") == [(36,)]


def test_delta(store, served):
    _, connection = served
    run(connection, secret_sql(store, "reader", store.reader))
    table = f"CREATE EXTERNAL TABLE d STORED AS DELTA LOCATION 's3://{BUCKET}/delta/' OPTIONS (secret 'reader')"
    run(connection, table)
    assert run(connection, "SELECT sum(v) FROM d") == [(300,)]
    run(connection, secret_sql(store, "reader", store.nobody))
    assert "secret reader gives no access" in refusal(connection, "SELECT sum(v) FROM d")
    # Another table of the bucket doesn't get its credentials.
    run(connection, secret_sql(store, "reader", store.reader))
    assert run(connection, "SELECT sum(v) FROM d") == [(300,)]
    run(connection, "DROP SECRET reader")
    assert "secret reader does not exist" in refusal(connection, "SELECT sum(v) FROM d")


def test_writing(store, served):
    _, connection = served
    run(connection, secret_sql(store, "reader", store.reader, f", SCOPE 's3://{BUCKET}'"))
    run(connection, f"COPY (SELECT 7 AS v) TO 's3://{BUCKET}/out/x.parquet' STORED AS PARQUET")
    run(connection, f"COPY (SELECT 8 AS v) TO 's3://{BUCKET}/out/y.parquet' STORED AS PARQUET OPTIONS (secret 'reader')")
    run(connection, table_sql("o", "out/"))
    assert run(connection, "SELECT sum(v) FROM o") == [(15,)]
    run(connection, secret_sql(store, "reader", store.nobody, f", SCOPE 's3://{BUCKET}'"))
    said = refusal(connection, f"COPY (SELECT 7 AS v) TO 's3://{BUCKET}/out/z.parquet' STORED AS PARQUET")
    assert "secret reader gives no access" in said


def test_a_role_is_taken_on(store, served):
    _, connection = served
    run(connection, secret_sql(store, "climber", store.climber))
    said = refusal(connection, table_sql("t", "raw/t.parquet", "OPTIONS (secret 'climber')"))
    assert "secret climber gives no access" in said
    role = f", ROLE_ARN '{store.role}', STS_ENDPOINT '{store.address}'"
    run(connection, secret_sql(store, "climber", store.climber, role))
    run(connection, table_sql("t", "raw/t.parquet", "OPTIONS (secret 'climber')"))
    assert run(connection, "SELECT sum(v) FROM t") == [(6,)]


def test_secrets_outlive_a_restart_and_are_sealed(store, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(base64.b64encode(b"k" * 32).decode())
    data = tmp_path / "data"
    kept = data / ".trireme/secrets.json"
    with Server(data, settings(store)) as server, connect(server) as connection:
        run(connection, secret_sql(store, "reader", store.reader))
        run(connection, table_sql("t", "raw/t.parquet", "OPTIONS (secret 'reader')"))
    assert kept.stat().st_mode & 0o777 == 0o600 and store.reader[1] in kept.read_text()
    assert store.reader[1] not in (data / ".trireme/catalog.json").read_text()
    sealed = settings(store) + ["--set", f"secrets.key_file={key_file}"]
    with Server(data, sealed) as server, connect(server) as connection:
        assert run(connection, "SELECT sum(v) FROM t") == [(6,)]
    assert store.reader[1] not in kept.read_text() and "AES-256-GCM" in kept.read_text()
    with pytest.raises(RuntimeError, match="secrets.key_file"):
        Server(data, settings(store))


def test_values_stand_nowhere(store, served):
    server, connection = served
    value = store.reader[1]
    run(connection, secret_sql(store, "reader", store.reader))
    run(connection, table_sql("t", "raw/t.parquet", "OPTIONS (secret 'reader')"))
    statements = [
        secret_sql(store, "reader", store.reader).replace("OR REPLACE ", ""),
        secret_sql(store, "broken", store.reader)[:-1] + " oops",
        "EXPLAIN " + secret_sql(store, "x", store.reader),
        f"CREATE SECERT x (TYPE s3, SECRET '{value}')",
        f"SELECT 1; CREATE SECRET x (TYPE s3, SECRET '{value}')",
        table_sql("n", "raw/t.parquet", f"OPTIONS ('aws.secret_access_key' '{value}' oops)"),
        table_sql("n", "raw/t.parquet", f"OPTIONS ('aws.secret_access_key' '{value}', 'aws.access_key_id' 'a')"),
    ]
    said = "".join(refusal(connection, sql) for sql in statements)
    tables = [f"system.{name}" for (name,) in run(connection, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'system'")]
    assert "system.secrets" in tables
    tables += ["information_schema.views", "information_schema.tables", "information_schema.columns"]
    shown = "".join(str(run(connection, f"SELECT * FROM {table}")) for table in tables)
    shown += str(run(connection, "EXPLAIN VERBOSE SELECT sum(v) FROM t")) + str(run(connection, "EXPLAIN ANALYZE SELECT sum(v) FROM t"))
    shown += str(run(connection, "SHOW ALL"))
    assert "CREATE OR REPLACE SECRET reader (…)" in shown
    assert value not in said and value not in shown and value not in server.log()


def test_profiles_of_the_operator(store, tmp_path, monkeypatch):
    (tmp_path / "config").write_text(
        f"[default]\nregion = us-east-1\n[profile work]\nrole_arn = {store.role}\nsource_profile = base\n"
    )
    key, value = store.climber
    (tmp_path / "credentials").write_text(f"[base]\naws_access_key_id = {key}\naws_secret_access_key = {value}\n")
    for name, given in [
        ("AWS_CONFIG_FILE", tmp_path / "config"),
        ("AWS_SHARED_CREDENTIALS_FILE", tmp_path / "credentials"),
        ("AWS_ENDPOINT_URL", store.address),
        ("AWS_ENDPOINT_URL_STS", store.address),
        ("AWS_ALLOW_HTTP", "true"),
    ]:
        monkeypatch.setenv(name, str(given))
    with Server(tmp_path / "data", settings(store)) as server, connect(server) as connection:
        run(connection, f"CREATE SECRET work (TYPE s3, PROVIDER credential_chain, PROFILE 'work', SCOPE 's3://{BUCKET}/raw')")
        run(connection, table_sql("t", "raw/t.parquet"))
        assert run(connection, "SELECT sum(v) FROM t") == [(6,)]
        assert "AWS profile gone" in refusal(
            connection, "CREATE SECRET gone (TYPE s3, PROVIDER credential_chain, PROFILE 'gone')"
        )
        assert value not in server.log()
    # The profile of the whole server.
    monkeypatch.setenv("AWS_PROFILE", "work")
    with Server(tmp_path / "other", settings(store)) as server, connect(server) as connection:
        run(connection, table_sql("t", "raw/t.parquet"))
        assert run(connection, "SELECT sum(v) FROM t") == [(6,)]
