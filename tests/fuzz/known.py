"""The errors of open bugs, from known.txt."""

import pathlib


def _read():
    lines = (pathlib.Path(__file__).resolve().parent / "known.txt").read_text().splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    return [(pattern, name) for name, pattern in pairs]


KNOWN = _read()  # (pattern, bug)
