"""`trisql` as scripts use it: formats, exit codes, metadata commands, TLS, Ctrl-C."""

import csv
import io
import json
import os
import signal
import subprocess
import time

import pytest
from conftest import PASSWORD, USER
from trireme import clean_environment, client_binary


def run(server, *arguments, stdin="", environment=None, uri=None):
    command = [client_binary(), "--no-rc", uri or server.uri, *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, env=clean_environment() | (environment or {})
    )


@pytest.fixture(scope="module", autouse=True)
def tables(server):
    script = "CREATE TABLE t AS SELECT value AS a, CASE WHEN value = 1 THEN NULL ELSE 'x, \"y\"' END AS s FROM range(3);"
    done = run(server, "-c", script)
    assert done.returncode == 0, done.stderr


def test_csv(server):
    done = run(server, "--format", "csv", "-c", "SELECT a, s FROM t ORDER BY a")
    assert done.returncode == 0, done.stderr
    assert list(csv.reader(io.StringIO(done.stdout))) == [["a", "s"], ["0", 'x, "y"'], ["1", ""], ["2", 'x, "y"']]


def test_json(server):
    done = run(server, "--format", "json", "-c", "SELECT a, s FROM t ORDER BY a")
    assert json.loads(done.stdout) == [{"a": 0, "s": 'x, "y"'}, {"a": 1, "s": None}, {"a": 2, "s": 'x, "y"'}]
    lines = run(server, "--format", "jsonl", "-c", "SELECT a FROM t ORDER BY a").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 0}, {"a": 1}, {"a": 2}]


@pytest.mark.parametrize("form", ["table", "tsv", "markdown", "vertical"])
def test_other_formats(server, form):
    done = run(server, "--format", form, "-c", "SELECT a, 'hello' AS greeting FROM t")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("hello") == 3
    assert "\x1b" not in done.stdout, "colour into a pipe"


def test_script_from_standard_input(server):
    done = run(server, "--format", "csv", "-t", stdin="SELECT 1 AS a;\n-- a comment; with a semicolon\nSELECT\n ';' AS b;\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", ";"]


def test_exit_codes(server, tmp_path):
    failed = run(server, "-c", "SELECT * FROM no_such_table")
    assert failed.returncode == 1
    assert "no_such_table" in failed.stderr
    script = tmp_path / "script.sql"
    script.write_text("SELECT 1;\nSELEC 2;\nSELECT 3;\n")
    stopped = run(server, "--format", "csv", "-t", "-f", str(script))
    assert stopped.returncode == 3
    assert stopped.stdout.split() == ["1"], "nothing after the error"
    assert run(server, "-c", "SELECT 1", uri="grpc://127.0.0.1:1").returncode == 2
    assert run(server, "--no-such-flag").returncode == 2


def test_sessions_end_with_the_program(server):
    def sessions():
        done = run(server, "--format", "csv", "-t", "-c", "SELECT count(*) FROM system.sessions")
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    before = sessions()
    for _ in range(3):
        run(server, "-c", "SELECT 1")
        run(server, "-c", "SELECT * FROM no_such_table")
    assert sessions() == before


def test_a_script_is_utf_8(server, tmp_path):
    script = tmp_path / "a.sql"
    script.write_bytes(b"\xef\xbb\xbfSELECT 'caf\xc3\xa9' AS s;\n")
    done = run(server, "--format", "csv", "-f", str(script))
    assert (done.returncode, done.stdout) == (0, "s\ncafé\n"), done.stderr
    script.write_bytes(b"SELECT 1 AS a;\nSELECT 'caf\xe9' AS s;\n")
    done = run(server, "--format", "csv", "-f", str(script))
    assert done.returncode != 0 and "line 2 is not UTF-8" in done.stderr, done.stderr
    assert done.stdout == "a\n1\n"


def test_metadata_commands(server):
    for command, wanted in [("\\dt", "t"), ("\\d t", "a"), ("\\dn", "public"), ("\\l", "trireme"), ("\\?", "\\d")]:
        done = run(server, "-c", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert wanted in done.stdout, f"{command}: {done.stdout}"


def test_changes_show_their_count(server):
    done = run(server, "-c", "CREATE TABLE u (a BIGINT)", "-c", "INSERT INTO u VALUES (1), (2)", "-c", "DELETE FROM u WHERE a = 1")
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert "INSERT" in text and "2" in text and "DELETE" in text


def test_output_file(server, tmp_path):
    path = tmp_path / "out.csv"
    assert run(server, "--format", "csv", "-o", str(path), "-c", "SELECT a FROM t ORDER BY a").returncode == 0
    assert path.read_text().split() == ["a", "0", "1", "2"]


def test_set_holds_within_a_run(server):
    done = run(server, "--format", "csv", "-t", "-c", "SET trireme.batch_rows = 42", "-c", "SHOW trireme.batch_rows")
    assert "42" in done.stdout


def test_tls_and_password(secured):
    arguments = ["--tls-ca", str(secured.certificate), "-U", USER, "--format", "csv", "-t", "-c", "SELECT 1 AS a"]
    done = run(secured.server, *arguments, environment={"TRISQL_PASSWORD": PASSWORD})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"]
    wrong = run(secured.server, *arguments, environment={"TRISQL_PASSWORD": "not-this-one"})
    assert wrong.returncode == 2
    assert "not-this-one" not in wrong.stderr


def test_interrupt_cancels_on_the_server(server):
    sql = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b WHERE a.value * b.value % 11 = 3"
    process = subprocess.Popen(
        [client_binary(), "--no-rc", server.uri, "-c", sql],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment() | {"TERM": os.environ.get("TERM", "dumb")},
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=15) == 130
    deadline = time.monotonic() + 10
    ask = "SELECT DISTINCT state FROM system.queries WHERE sql LIKE '%11 = 3' AND sql NOT LIKE '%system.queries%'"
    while (state := run(server, "--format", "csv", "-t", "-c", ask).stdout.strip()) != "Cancelled":
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
