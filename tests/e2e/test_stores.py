"""The examples of docs/stores: every block marked `tested`, as it stands there, against a server and a store.

Only addresses and folders are put in place of the documented ones. A `toml` block is the server's configuration; `sql` blocks
run in their order through `trisql`; a `text` block behind one is what it prints, and behind `sql tested error` what the error
contains.
"""

import io
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
        command, input=script, capture_output=True, text=True, timeout=60, env=clean_environment()
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


def test_secrets_of_examples_stay_where_they_are():
    """An example must not teach to write real keys into statements that are shown again."""
    for path in PAGES.glob("*.md"):
        assert not re.search(r"AKIA[0-9A-Z]{16}", path.read_text()), path
