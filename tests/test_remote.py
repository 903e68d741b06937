"""What was pushed to a remote of DVC's is all that another machine needs: pulled, published, it answers as before."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from built_copy import command, served

from convoy.bundle import read_bundle

pytestmark = pytest.mark.slow
TASKS = ("image", "text")
BUILT = ("data", "candidates", "bundles", ".dvc/cache", "deployed", "mlflow.db", "mlruns")


class Objects(BaseHTTPRequestHandler):
    """A store of objects by path: PUT, GET and HEAD, as DVC's HTTP remote wants it."""

    stored: dict[str, bytes]

    def handle(self) -> None:
        """DVC leaves its connections without a word."""
        with suppress(ConnectionError):
            super().handle()

    def do_PUT(self) -> None:
        """Keep a body, which DVC sends in chunks."""
        content = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers["Content-Length"]))
        self.stored[self.path] = content
        self._answer(201, b"")

    def do_GET(self) -> None:
        """Give what was kept."""
        found = self.stored.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    do_HEAD = do_GET

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the remote is."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    handler = type("Handler", (Objects,), {"stored": {}, "protocol_version": "HTTP/1.1"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/store"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("url", ["folder", "http"], indirect=True)
def test_what_was_pushed_is_pulled_published_and_answers(copy: Path, tmp_path: Path, url: str) -> None:
    here = tmp_path / "convoy"
    shutil.copytree(copy, here, symlinks=True)
    digests = {task: read_bundle(here / "bundles" / task).digest for task in TASKS}
    command(here, "dvc", "remote", "add", "--default", "store", url)
    if url.startswith("http"):
        command(here, "dvc", "remote", "modify", "store", "method", "PUT")
    command(here, "dvc", "push", timeout_s=300)
    for name in BUILT:
        path = here / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    command(here, "dvc", "pull", timeout_s=300)
    command(here, "convoy", "verify")
    assert "Running stage" not in command(here, "dvc", "repro")
    command(here, "convoy", "publish", timeout_s=300)
    with served(here) as address:
        models = httpx.get(f"{address}/v1/models").json()
        answer = httpx.post(f"{address}/v1/texts/predict", json={"texts": ["A wonderful film."]}, timeout=30)
    assert {task: models[task]["release"]["digest"] for task in TASKS} == digests
    assert answer.status_code == 200 and answer.json()["model"]["digest"] == digests["text"]
