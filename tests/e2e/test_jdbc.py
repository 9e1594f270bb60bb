"""The Arrow Flight SQL JDBC driver; `java/JdbcTest.java` does the work, here each of its checks is a test."""

import os
import pathlib
import re
import subprocess

import pytest
from conftest import PASSWORD, USER
from trireme import ROOT

SOURCE = pathlib.Path(__file__).parent / "java/JdbcTest.java"
CHECKS = re.findall(r'^    check\("([^"]+)"', SOURCE.read_text(), re.MULTILINE)
TOOLS = pathlib.Path(os.environ.get("TRIREME_TOOLS", ROOT / ".tools")) / "java"


@pytest.fixture(scope="module")
def output(server, secured):
    driver = next(TOOLS.glob("flight-sql-jdbc-driver-*.jar"), None)
    if driver is None:
        pytest.skip("no JDBC driver; tests/e2e/setup.sh brings it")
    command = ["java", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-Duser.timezone=UTC"]
    command += ["-cp", f"{driver}:{TOOLS / 'classes'}", "JdbcTest", str(server.port)]
    command += [str(secured.server.port), str(secured.certificate), USER, PASSWORD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    print(driver.name, *(line for line in done.stdout.splitlines() if line.startswith("NOTE")), sep="\n")
    return done.stdout, done.stderr


@pytest.mark.parametrize("check", CHECKS)
def test_jdbc(output, check):
    lines = output[0].splitlines()
    failure = next((line for line in lines if line.startswith(f"FAIL {check}:")), None)
    assert failure is None, failure
    assert f"PASS {check}" in lines, f"{check} did not run:\n{output[0]}\n{output[1][-3000:]}"
