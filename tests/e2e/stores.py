"""Object stores as processes of this machine, for tests: moto (S3), azurite (Azure), simstore (S3, GCS, Azure), a web server.

As a program it runs a command while moto and azurite are up, and tells it where they are:

    stores.py cargo test -p simstore --test conformance

`TRIREME_TOOLS` is where `setup.sh stores` installed moto and azurite; `SIMSTORE_BIN` names a built simstore.
"""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.server
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from trireme import ROOT, binary, free_port

# The account and key that every Azure emulator knows; they protect nothing.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
AZURE_VERSION = "2021-08-06"

# The bucket that the conformance list takes for its own.
CONFORMANCE_BUCKET = "conformance"


def tools_folder() -> pathlib.Path:
    folder = os.environ.get("TRIREME_TOOLS")
    return pathlib.Path(folder) if folder else ROOT / ".tools"


class Process:
    """A server on a free port; `command` gets the port. Its output is kept for whoever asks why it is not up."""

    READY_LIMIT_S = 60.0

    def __init__(self, command):
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.NamedTemporaryFile(prefix="trireme-store-", suffix=".txt")
        self.process = subprocess.Popen(
            command(self.port), stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + self.READY_LIMIT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                text = pathlib.Path(self._log.name).read_text(errors="replace")
                raise RuntimeError(f"{command(self.port)[0]} does not answer:\n{text[-3000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.address, timeout=10).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def send(method, url, body=b"", headers=None):
    request = urllib.request.Request(url, data=body or None, method=method, headers=headers or {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def quoted(key: str) -> str:
    return urllib.parse.quote(key, safe="/")


class Moto(Process):
    """S3. Checks no signatures, but wants one."""

    SIGNATURE = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

    def __init__(self):
        program = tools_folder() / "moto/bin/moto_server"
        super().__init__(lambda port: [str(program), "-H", "127.0.0.1", "-p", str(port)])

    def create(self, bucket):
        send("PUT", f"{self.address}/{bucket}")

    def put(self, bucket, key, body):
        headers = {"content-type": "application/octet-stream", "authorization": self.SIGNATURE}
        send("PUT", f"{self.address}/{bucket}/{quoted(key)}", body, headers)


class Azurite(Process):
    """Azure Blob Storage. Checks signatures."""

    def __init__(self):
        program = tools_folder() / "azurite/node_modules/.bin/azurite-blob"
        self._folder = tempfile.TemporaryDirectory(prefix="trireme-azurite-")
        arguments = ["--skipApiVersionCheck", "--silent", "--location", self._folder.name, "--blobHost", "127.0.0.1"]
        super().__init__(lambda port: [str(program), *arguments, "--blobPort", str(port)])

    def stop(self):
        super().stop()
        self._folder.cleanup()

    def create(self, container):
        signed(self.address, "PUT", container, {"restype": "container"})

    def put(self, container, key, body):
        signed(self.address, "PUT", f"{container}/{quoted(key)}", {}, body, {"x-ms-blob-type": "BlockBlob"})


def signed(address, method, path, query, body=b"", headers=None):
    """A request with Azure's shared key: the string to sign has a line per standard header, most of them empty."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": AZURE_VERSION} | (headers or {})
    kind = "application/octet-stream" if body else ""
    standard = [method, "", "", str(len(body)) if body else "", "", kind, "", "", "", "", "", ""]
    vendor = [f"{name}:{value}" for name, value in sorted(headers.items())]
    resource = f"/{ACCOUNT}/{ACCOUNT}/{path}"
    text = "\n".join([*standard, *vendor, resource, *(f"{name}:{value}" for name, value in sorted(query.items()))])
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    if kind:
        headers["content-type"] = kind
    url = f"{address}/{ACCOUNT}/{path}"
    return send(method, f"{url}?{urllib.parse.urlencode(query)}" if query else url, body, headers)


class Simstore(Process):
    """S3, GCS and Azure, simulated. Checks no signatures."""

    def __init__(self):
        program = binary("simstore", "SIMSTORE_BIN")
        super().__init__(lambda port: [program, "--port", str(port), "--bucket", "lake"])

    def create(self, bucket):
        with contextlib.suppress(urllib.error.HTTPError):
            send("PUT", f"{self.address}/{bucket}")

    def put(self, bucket, key, body):
        send("PUT", f"{self.address}/{bucket}/{quoted(key)}", body, {"content-type": "application/octet-stream"})


class Web:
    """A web server for the files of a folder: HEAD, GET, entity tags, and ranges if it has them; no listings.

    Below `/moved/` it redirects to `elsewhere`.
    """

    def __init__(self, folder, ranges=True, elsewhere=""):
        self.requests = []
        fields = {"folder": pathlib.Path(folder), "requests": self.requests, "ranges": ranges, "elsewhere": elsewhere}
        handler = type("Handler", (WebHandler,), fields)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


class WebHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(send_body=False)

    def do_GET(self):
        self._answer(send_body=True)

    def _answer(self, send_body):
        path = urllib.parse.unquote(self.path)
        self.requests.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/moved/"):
            self._head(302, 0, {"Location": self.elsewhere + path.removeprefix("/moved")})
            return
        file = self.folder / path.lstrip("/")
        if not file.is_file():
            self._head(404, 0, {})
            return
        body = file.read_bytes()
        headers = {
            "ETag": f'"{hashlib.md5(body).hexdigest()}"',
            "Last-Modified": email.utils.formatdate(file.stat().st_mtime, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if self.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            self._head(412, 0, {})
            return
        status, start, end = 200, 0, len(body)
        if self.ranges and (span := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))):
            first, last = span.groups()
            start = int(first) if first else max(0, end - int(last))
            end = min(end, int(last) + 1) if first and last else end
            if start >= end:
                self._head(416, 0, {"Content-Range": f"bytes */{len(body)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        self._head(status, end - start, headers)
        if send_body:
            self.wfile.write(body[start:end])

    def _head(self, status, length, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def main():
    command = sys.argv[1:]
    if not command:
        raise SystemExit(__doc__)
    with contextlib.ExitStack() as running:
        environment = dict(os.environ)
        for name, kind in [("TRIREME_MOTO", Moto), ("TRIREME_AZURITE", Azurite)]:
            server = running.enter_context(kind())
            server.create(CONFORMANCE_BUCKET)
            environment[name] = server.address
        return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
