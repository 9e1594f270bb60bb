"""Servers for the end-to-end tests."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from trireme import Server, add_user, make_certificate  # noqa: E402

USER, PASSWORD = "alice", "open sesame"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for each module of tests, with a few tables."""
    with Server(tmp_path_factory.mktemp("data")) as running:
        yield running


class Secured:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.certificate, key = make_certificate(folder)
        add_user(self.folder / "users", USER, PASSWORD)
        data = self.folder / "data"
        data.mkdir()
        settings = {
            "server.tls_certificate_file": self.certificate,
            "server.tls_key_file": key,
            "server.users_file": self.folder / "users",
        }
        arguments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.server = Server(data, arguments, tls=True)
        self.uri = self.server.uri


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A server with TLS and one user."""
    secured = Secured(tmp_path_factory.mktemp("secured"))
    yield secured
    secured.server.stop()
