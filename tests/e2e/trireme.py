"""The built server as a process, for tests and benchmarks: free ports, its own data folder, its log at hand.

`TRIREME_BIN` names the server binary, `TRISQL_BIN` the command line client; without them the test build's are used.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]


def target_folder() -> pathlib.Path:
    folder = os.environ.get("CARGO_TARGET_DIR")
    return pathlib.Path(folder) if folder else ROOT / "target"


def binary(name: str, variable: str) -> str:
    if path := os.environ.get(variable):
        return path
    for profile in ("ci", "release"):
        path = target_folder() / profile / name
        if path.exists():
            return str(path)
    raise SystemExit(f"{name} is not built; build it or set {variable}")


def server_binary() -> str:
    return binary("trireme", "TRIREME_BIN")


def client_binary() -> str:
    return binary("trisql", "TRISQL_BIN")


def clean_environment() -> dict:
    """No setting of the caller reaches the server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TRIREME_")}


_given_ports = set()


def free_port() -> int:
    """A port that was given to nobody else here: the system gives one again as soon as it is closed."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given_ports:
            _given_ports.add(port)
            return port


class Server:
    """A running `trireme serve`; `arguments` are further ones of `serve`."""

    def __init__(self, data, arguments=(), tls=False, ready_limit_s=60.0):
        self.data = pathlib.Path(data)
        self.tls = tls
        self.port = free_port()
        self.http_port = free_port()
        self._log = tempfile.NamedTemporaryFile(prefix="trireme-log-", suffix=".txt", delete=False)
        command = [server_binary(), "serve", "--data", str(data), *arguments]
        command += ["--listen", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.http_port}"]
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, env=clean_environment()
        )
        while not self._ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            if time.perf_counter() - begin > ready_limit_s:
                self.kill()
                raise RuntimeError(f"the server is not ready after {ready_limit_s} s:\n{self.log()}")
            time.sleep(0.002)
        self.start_ms = (time.perf_counter() - begin) * 1000

    def _ready(self) -> bool:
        if self.tls:
            return all(_accepts(port) for port in (self.port, self.http_port))
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=10) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    @property
    def uri(self) -> str:
        return f"grpc+tls://localhost:{self.port}" if self.tls else f"grpc://127.0.0.1:{self.port}"

    def log(self) -> str:
        return pathlib.Path(self._log.name).read_text(errors="replace")

    def memory_bytes(self, field="VmRSS") -> int:
        """A figure of /proc/<pid>/status; `VmHWM` is the peak."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()[-3000:]}")
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(field)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        os.unlink(self._log.name)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def generate(dataset: str, scale: float, out) -> pathlib.Path:
    """The tables of `tpch` or `tpcds` as Parquet in `out`, made once: a stamp names the scale they were made for."""
    out = pathlib.Path(out)
    stamp = out / ".scale.json"
    if stamp.exists() and json.loads(stamp.read_text()) == scale:
        return out
    out.mkdir(parents=True, exist_ok=True)
    command = [server_binary(), "generate", dataset, "--scale", str(scale), "--out", str(out), "--overwrite"]
    subprocess.run(command, check=True, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stamp.write_text(json.dumps(scale))
    return out


def generate_tpch(scale: float, out) -> pathlib.Path:
    return generate("tpch", scale, out)


def make_certificate(folder) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for localhost and its key."""
    certificate, key = pathlib.Path(folder) / "cert.pem", pathlib.Path(folder) / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
    command += f" -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key


def add_user(users_file, name, password):
    command = [server_binary(), "user", "add", "--users-file", str(users_file), name]
    subprocess.run(command, input=password + "\n", text=True, check=True, capture_output=True, env=clean_environment())
