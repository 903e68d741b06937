"""Deployed tiny bundles, the service in this process, and one real `bentoml serve` for the whole session."""

import json
import os
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import httpx
import pytest
import tiny_bundles
from hypothesis import settings
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from convoy.bundles.bundle import Release, digest_of
from convoy.core.children import Child
from serving.deployed import Deployed, load_task
from serving.middleware import Middleware
from serving.models import DeployedModels
from serving.routes import Handler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what BentoML's own imports use is not ours to mend
    # Here, and not in the first test that wants it: its import takes longer than most tests.
    from serving.service import service

ROOT = Path(__file__).parents[2]
FUZZ = "fuzz"  # of hypothesis: pytest --hypothesis-profile=fuzz, which is `make fuzz`
settings.register_profile(FUZZ)
WRITERS: dict[str, Callable[[Path], None]] = {
    "fashion": tiny_bundles.write_image_bundle,
    "reviews": tiny_bundles.write_text_bundle,
    "reviews-stream": tiny_bundles.write_stream_bundle,
}


def deploy(root: Path, task: str, write: Callable[[Path], None] | None = None) -> Path:
    """Write a bundle and its release and let it serve, as `promote` does; gives its folder."""
    (root / task).mkdir(parents=True, exist_ok=True)
    fresh = root / task / "fresh"
    (write or WRITERS[task])(fresh)
    digest = digest_of(fresh)
    folder = fresh.rename(root / task / digest)
    release = Release(
        name=f"convoy-{task}", version="7", run_id="0123456789abcdef", digest=digest, promoted_at="2026-11-23T12:00:00Z"
    )
    (folder / "release.json").write_text(release.model_dump_json())
    switch(root, task, digest)
    return folder


def switch(root: Path, task: str, digest: str) -> None:
    """Let `digest` serve, in one step."""
    link = root / task / ".current"
    link.symlink_to(digest)
    link.replace(root / task / "current")


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all models; nobody may change it."""
    root = tmp_path_factory.mktemp("deployed")
    for task in WRITERS:
        deploy(root, task)
    return root


@cache
def tiny_models() -> DeployedModels:
    """All models with their routes, for what is parametrized by them."""
    with tempfile.TemporaryDirectory() as folder:
        for task in WRITERS:
            deploy(Path(folder), task)
        return DeployedModels({task: load_task(Path(folder), task) for task in WRITERS})


@pytest.fixture(scope="session")
def image_model(deployed: Path) -> Deployed:
    model = load_task(deployed, "fashion")
    assert isinstance(model, Deployed)
    return model


@pytest.fixture(scope="session")
def text_model(deployed: Path) -> Deployed:
    model = load_task(deployed, "reviews")
    assert isinstance(model, Deployed)
    return model


@pytest.fixture(scope="session")
def stream_model(deployed: Path) -> Deployed:
    model = load_task(deployed, "reviews-stream")
    assert isinstance(model, Deployed)
    return model


async def no_bentoml(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """In place of BentoML's app, which the routes of tasks never ask."""
    raise AssertionError("BentoML was asked")


def layer_with(handler: Handler, model: Deployed) -> Middleware:
    """The middleware, with `handler` for each route of the task fashion."""
    models = DeployedModels({"fashion": model})
    routes = models.by_path.items()
    models.by_path = {path: replace(route, handler=handler) if route.task else route for path, route in routes}
    return Middleware(no_bentoml, models)


@cache
def asgi_app() -> ASGIApp:
    """The service's app; made once, since BentoML registers its metrics again for each."""
    app: ASGIApp = service.to_asgi()
    return app


@contextmanager
def service_of(root: Path) -> Iterator[TestClient]:
    """The whole service in this process, started with what stands in `root`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVOY_DEPLOYED", str(root))
        with TestClient(asgi_app(), raise_server_exceptions=False) as client:
            yield client


@pytest.fixture(scope="module")
def client(deployed: Path) -> Iterator[TestClient]:
    """The whole service as an ASGI app, without a server."""
    with service_of(deployed) as test_client:
        yield test_client


@dataclass(frozen=True)
class Server:
    """A running `bentoml serve`."""

    url: str
    port: int
    log: Path
    pid: int


@pytest.fixture(scope="session")
def server(deployed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`bentoml serve` as a process of its own, ready."""
    with serve(deployed, tmp_path_factory.mktemp("server")) as running:
        yield running


@contextmanager
def serve(
    root: Path | None,
    folder: Path,
    what: str = "serving.service:service",
    cwd: Path = ROOT,
    ready_path: str = "/readyz",
    **environment: str,
) -> Iterator[Server]:
    """A real `bentoml serve` of what stands in `root`, ready; its log and its home are in `folder`.

    `ready_path` is what answers 200 when it is ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    deployed = {"CONVOY_DEPLOYED": str(root)} if root else {}
    environment = {**os.environ, **deployed, "BENTOML_HOME": str(folder / "home"), **environment}
    command = [sys.executable, "-m", "bentoml", "serve", what, "--port", str(port)]
    with Child(command, folder / "log", cwd=cwd, env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url + ready_path, process, folder / "log")
        try:
            yield Server(url, port, folder / "log", process.pid)
        finally:
            process.terminate()
            process.wait(20)  # raises where it does not end by itself


def _wait_until_ready(url: str, process: Child, log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def error_of(response: httpx.Response) -> dict[str, str]:
    """The error of an answer, after a check of its form."""
    content = json.loads(response.content)
    assert set(content) in ({"error"}, {"error", "tasks"}), content
    error: dict[str, str] = content["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["request_id"] == response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    return error


def without_id(response: httpx.Response) -> bytes:
    """A prediction as the prediction functions give it, after a check of the request id that the service adds."""
    added = f',"request_id":"{response.headers["x-request-id"]}"}}'.encode()
    assert response.content.endswith(added), response.content
    return response.content.removesuffix(added) + b"}"
