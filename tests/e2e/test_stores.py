"""The examples of docs/stores: every block marked `tested`, as it stands there, against a server and a store.

Only addresses and folders are put in place of the documented ones. A `toml` block is the server's configuration; `sql` blocks
run in their order through `trisql`; a `text` block behind one is what it prints, and behind `sql tested error` what the error
contains.
"""

import io
import json
import pathlib
import re
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
from trireme import ROOT, Server, clean_environment, client_binary

PAGES = ROOT / "docs/stores"
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

DAYS = {
    "2026-01-01": [(1, "ada", 10.5), (2, "bob", 31.25), (3, "ada", 20.0)],
    "2026-01-02": [(4, "cyd", 12.0), (5, "bob", 8.0)],
}


def parquet(rows) -> bytes:
    ids, customers, amounts = zip(*rows)
    table = pa.table({"id": list(ids), "customer": list(customers), "amount": list(amounts)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def files():
    """The table `orders`, in partitions."""
    return {f"orders/day={day}/part 0.parquet": parquet(rows) for day, rows in DAYS.items()}


def write(folder, contents):
    for name, body in contents.items():
        path = pathlib.Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def served(store):
    store.create("lake")
    for key, body in files().items():
        store.put("lake", key, body)
    return store


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Where what a page documents is to be found."""
    lake = tmp_path_factory.mktemp("lake")
    whole = {"orders.parquet": parquet(sum(DAYS.values(), []))}
    write(lake, files() | whole)
    with stores.Moto() as moto, stores.Azurite() as azurite, stores.Simstore() as simstore, stores.Web(lake) as web:
        yield {
            "s3": {"http://127.0.0.1:9000": served(moto).address},
            "azure": {"http://127.0.0.1:10000": served(azurite).address},
            "gcs": {"http://127.0.0.1:9100": served(simstore).address},
            "http": {"http://127.0.0.1:8000": web.address},
            "local": {"/srv/lake": str(lake)},
        }


def blocks(page, places):
    """Language, marks and text of each fenced block."""
    text = (PAGES / f"{page}.md").read_text()
    for documented, real in places.items():
        text = text.replace(documented, real)
    return [(language, marks.split(), body) for language, marks, body in FENCE.findall(text)]


def trisql(server, script):
    command = [client_binary(), "--no-rc", server.uri, "--format", "table", "-f", "-"]
    return subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=120, env=clean_environment()
    )


def printed(text):
    """Without spaces at the ends of lines, which editors take away."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


@pytest.mark.parametrize("page", ["s3", "gcs", "azure", "http", "local"])
def test_page(page, places, tmp_path):
    fenced = blocks(page, places[page])
    config = tmp_path / "trireme.toml"
    config.write_text("".join(body for language, marks, body in fenced if language == "toml" and "tested" in marks))
    data = tmp_path / "data"
    data.mkdir()
    if page == "local":
        write(data, files())
    ran = 0
    with Server(data, ["--config", str(config)]) as server:
        for (language, marks, body), (next_language, _, wanted) in zip(fenced, [*fenced[1:], ("", [], "")]):
            if language != "sql" or "tested" not in marks:
                continue
            ran += 1
            done = trisql(server, body)
            if "error" in marks:
                assert done.returncode != 0, f"{body}\nshould fail; it printed\n{done.stdout}"
                assert next_language == "text", f"what does this error say?\n{body}"
                assert printed(wanted) in printed(done.stderr), body
                continue
            assert done.returncode == 0, f"{body}\n{done.stderr}\n{server.log()}"
            if next_language == "text":
                assert printed(wanted) in printed(done.stdout), f"{body}\n{done.stdout}"
    assert ran > 0, f"{page}.md has no tested block"


def test_every_page_is_listed():
    listed = set(re.findall(r"\]\((\w+)\.md\)", (PAGES / "README.md").read_text()))
    assert listed == {path.stem for path in PAGES.glob("*.md")} - {"README"}


def test_credentials_are_not_shown_again(everywhere):
    """Neither those of OPTIONS nor those of a secret: in no list, definition, error or log."""
    server, reached = everywhere
    store, options = reached["az"]
    store.put("lake", "hidden/f.parquet", parquet(DAYS["2026-01-01"]))
    create(server, options, "hidden", "PARQUET", "az://lake/hidden/")
    csv(
        server,
        f"CREATE SECRET hidden (TYPE azure, ACCOUNT_NAME '{stores.ACCOUNT}', ACCOUNT_KEY '{stores.KEY}', "
        f"ENDPOINT '{store.address}/{stores.ACCOUNT}', SCOPE 'az://lake/hidden')",
    )
    csv(server, "CREATE EXTERNAL TABLE hidden_too STORED AS PARQUET LOCATION 'az://lake/hidden/f.parquet'")
    assert csv(server, "SELECT count(*) FROM hidden_too") == ["3"]
    shown = [
        "SHOW CREATE TABLE hidden; SHOW CREATE TABLE hidden_too",
        "SELECT * FROM system.secrets; SELECT * FROM system.queries; SELECT * FROM system.stores",
        "SELECT * FROM information_schema.tables; SELECT * FROM information_schema.views",
        "EXPLAIN VERBOSE SELECT * FROM hidden; EXPLAIN ANALYZE SELECT * FROM hidden_too",
        "CREATE EXTERNAL TABLE wrong STORED AS PARQUET LOCATION 'az://lake/hidden/' "
        f"OPTIONS ('azure.storage_account_key' '{stores.KEY}', 'azure.no_such_option' '{stores.KEY}')",
        f"CREATE SECRET wrong (TYPE azure, ACCOUNT_KEY '{stores.KEY}', {stores.KEY})",
    ]
    for script in shown:
        done = trisql(server, script + ";")
        assert stores.KEY not in done.stdout + done.stderr, script
    assert stores.KEY not in server.log()


def delta():
    """The same rows as a Delta table, its log written by hand."""
    columns = [("id", "long"), ("customer", "string"), ("amount", "double"), ("day", "date")]
    fields = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in columns]
    metadata = {
        "id": "5a0d0000-0000-4000-8000-000000000001",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": ["day"],
        "configuration": {},
        "createdTime": 1,
    }
    log = [{"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, {"metaData": metadata}]
    contents = {}
    for day, rows in DAYS.items():
        contents[f"events/day={day}/part 0.parquet"] = body = parquet(rows)
        add = {"path": f"day={day}/part%200.parquet", "partitionValues": {"day": day}, "size": len(body)}
        log.append({"add": add | {"modificationTime": 1, "dataChange": True}})
    contents["events/_delta_log/00000000000000000000.json"] = "\n".join(map(json.dumps, log)).encode()
    return contents


def csv(server, sql):
    command = [client_binary(), "--no-rc", server.uri, "--format", "csv", "-t", "-c", sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=clean_environment())
    assert done.returncode == 0, f"{sql}\n{done.stderr}"
    return done.stdout.split()


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    """A server, and per scheme the store and the options that lead there."""
    with stores.Moto() as moto, stores.Azurite() as azurite, stores.Simstore() as simstore:
        reached = {
            "s3": (
                moto,
                {
                    "aws.endpoint": moto.address,
                    "aws.allow_http": "true",
                    "aws.region": "us-east-1",
                    "aws.access_key_id": "test",
                    "aws.secret_access_key": "test",
                },
            ),
            "az": (
                azurite,
                {
                    "azure.endpoint": f"{azurite.address}/{stores.ACCOUNT}",
                    "azure.allow_http": "true",
                    "azure.storage_account_name": stores.ACCOUNT,
                    "azure.storage_account_key": stores.KEY,
                },
            ),
            "gs": (
                simstore,
                {"gcp.base_url": simstore.address, "gcp.allow_http": "true", "gcp.skip_signature": "true"},
            ),
        }
        for store, _ in reached.values():
            store.create("lake")
        allowed = [f"{scheme}://lake" for scheme in reached] + [store.address for store, _ in reached.values()]
        arguments = ["--set", f"io.allowed_locations={','.join(allowed)}"]
        with Server(tmp_path_factory.mktemp("data"), arguments) as server:
            yield server, reached


def create(server, options, table, form, location):
    pairs = ", ".join(f"'{key}' '{value}'" for key, value in options.items())
    csv(server, f"CREATE EXTERNAL TABLE {table} STORED AS {form} LOCATION '{location}' OPTIONS ({pairs})")


@pytest.mark.parametrize("scheme", ["s3", "az", "gs"])
def test_delta(everywhere, scheme):
    server, reached = everywhere
    store, options = reached[scheme]
    for key, body in delta().items():
        store.put("lake", key, body)
    create(server, options, f"{scheme}_events", "DELTA", f"{scheme}://lake/events/")
    sql = f"SELECT day, count(*), sum(amount) FROM {scheme}_events GROUP BY day ORDER BY day"
    assert csv(server, sql) == ["2026-01-01,3,61.75", "2026-01-02,2,20.0"]


@pytest.mark.parametrize("scheme", ["s3", "az", "gs"])
def test_changes_show_in_the_next_statement(everywhere, scheme):
    """New and replaced objects, keys that need care, through every cache."""
    server, reached = everywhere
    store, options = reached[scheme]
    folder = "fresh/country=M%C3%BCnchen + 1"
    store.put("lake", f"{folder}/a b.parquet", parquet(DAYS["2026-01-01"]))
    create(server, options, f"{scheme}_fresh", "PARQUET", f"{scheme}://lake/fresh/")

    def read():
        return csv(server, f"SELECT replace(country, ' ', '_') AS c, count(*), sum(amount) FROM {scheme}_fresh GROUP BY c")

    for _ in range(2):
        assert read() == ["München_+_1,3,61.75"]
    store.put("lake", f"{folder}/c+d.parquet", parquet(DAYS["2026-01-02"]))
    assert read() == ["München_+_1,5,81.75"]
    store.put("lake", f"{folder}/a b.parquet", parquet(DAYS["2026-01-02"]))
    assert read() == ["München_+_1,4,40.0"]


def test_patterns_over_partitions(everywhere):
    server, reached = everywhere
    store, options = reached["s3"]
    for key, body in files().items():
        store.put("lake", f"patterns/{key}", body)
    patterns = {
        "*/*.parquet": "5",
        "**/*.parquet": "5",
        "day=*/part*": "5",
        "day=*-02/*": "2",
        "day=2026-01-0[1]/part ?.*": "3",
    }
    for number, (pattern, rows) in enumerate(patterns.items()):
        create(server, options, f"patterns_{number}", "PARQUET", f"s3://lake/patterns/orders/{pattern}")
        got = csv(server, f"SELECT count(*), count(day) FROM patterns_{number}")
        assert got == [f"{rows},{rows}"], pattern


@pytest.mark.parametrize(
    ("key", "location"),
    [
        ("a b+c", "a b+c"),
        ("k=ü &1", "k=ü &1"),
        ("p%41", "p%2541"),
        ("h#t", "h%23t"),
        ("[1]*", "%5B1%5D%2A"),
        ("semi;colon,'quote'", "semi;colon,''quote''"),
    ],
)
def test_locations_with_special_characters(everywhere, key, location):
    """As the documentation says they are written; decoys stand where another reading would look."""
    server, reached = everywhere
    store, options = reached["s3"]
    store.put("lake", f"special/{key}/f.parquet", parquet(DAYS["2026-01-01"]))
    for decoy in ["a b c", "pA", "h", "1"]:
        store.put("lake", f"special/{decoy}/f.parquet", parquet(DAYS["2026-01-02"]))
    for number, end in enumerate(["/", "/f.parquet"]):
        table = f'"special {key} {number}"'
        create(server, options, table, "PARQUET", f"s3://lake/special/{location}{end}")
        assert csv(server, f"SELECT count(*) FROM {table}") == ["3"]


def test_web_servers_lead_nowhere_else(tmp_path):
    """A redirect into the list is followed, one out of it is not; a server without ranges is said to have none."""
    web = tmp_path / "web"
    write(web, {"orders.parquet": parquet(DAYS["2026-01-01"])})
    data = tmp_path / "data"
    data.mkdir()
    with stores.Web(web) as inside, stores.Web(web) as outside:
        with stores.Web(web, elsewhere=inside.address) as into, stores.Web(web, elsewhere=outside.address) as out:
            with stores.Web(web, ranges=False) as whole:
                allowed = ",".join(each.address for each in (inside, into, out, whole))
                with Server(data, ["--set", f"io.allowed_locations={allowed}"]) as server:
                    table = "CREATE EXTERNAL TABLE {} STORED AS PARQUET LOCATION '{}/orders.parquet'"
                    csv(server, table.format("a", f"{into.address}/moved"))
                    assert csv(server, "SELECT count(*) FROM a") == ["3"]
                    refused = trisql(server, table.format("b", f"{out.address}/moved"))
                    assert refused.returncode != 0 and "redirect" in refused.stderr, refused.stderr
                    assert outside.requests == []
                    no_ranges = trisql(server, table.format("c", whole.address))
                    assert "gives files only as a whole" in no_ranges.stderr
