"""A JavaScript client; `js/client.test.js` does the work, here each of its checks is a test."""

import os
import pathlib
import re
import subprocess

import pytest
from trireme import ROOT

SOURCE = pathlib.Path(__file__).parent / "js/client.test.js"
CHECKS = re.findall(r'^  "([^"]+)": async', SOURCE.read_text(), re.MULTILINE)
MODULES = pathlib.Path(os.environ.get("TRIREME_TOOLS", ROOT / ".tools")) / "js/node_modules"


@pytest.fixture(scope="module")
def output(server):
    if not MODULES.exists():
        pytest.skip("no JavaScript client; tests/e2e/setup.sh brings it")
    command = ["node", str(SOURCE), str(server.port)]
    environment = os.environ | {"NODE_PATH": str(MODULES)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return done.stdout, done.stderr


@pytest.mark.parametrize("check", CHECKS)
def test_js(output, check):
    lines = output[0].splitlines()
    failure = next((line for line in lines if line.startswith(f"FAIL {check}:")), None)
    assert failure is None, failure
    assert f"PASS {check}" in lines, f"{check} did not run:\n{output[0]}\n{output[1][-3000:]}"
