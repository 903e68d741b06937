"""Artifacts come from the tracking server's own host, and end where they are too large or too slow."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow_store import open_empty_store

from convoy.operations.cleanup import retention
from convoy.tracking import artifacts, mlflow_runs, registry
from convoy.tracking.artifacts import ArtifactRefused
from convoy.tracking.registry import VersionInvalid

pytestmark = pytest.mark.mlflow
RUN = "a" * 32
DIGEST = "b" * 64


class Tracking(BaseHTTPRequestHandler):
    """A tracking server with one run, whose file never ends; `requests` has the path and the token of each request."""

    artifact_uri: ClassVar[str]
    pause_s: ClassVar[float]
    requests: ClassVar[list[tuple[str, str | None]]]

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/api/2.0/mlflow/runs/get"):
            info = {"run_id": RUN, "run_uuid": RUN, "artifact_uri": self.artifact_uri, "status": "FINISHED"}
            self._answer({"run": {"info": info, "data": {}}})
        elif self.path.startswith("/api/2.0/mlflow-artifacts/artifacts/"):
            self._send_for_ever()
        else:
            self._answer({"files": []})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_for_ever(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(10**12))
        self.end_headers()
        deadline = time.monotonic() + 60
        with suppress(OSError):
            while time.monotonic() < deadline:
                self.wfile.write(b"x" if self.pause_s else b"x" * 100_000)
                time.sleep(self.pause_s)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts a server of its own for each call."""
    started: list[ThreadingHTTPServer] = []

    def start(artifact_uri: str = "mlflow-artifacts:/0/run/artifacts", pause_s: float = 0.0) -> tuple[str, Any]:
        attributes = {"artifact_uri": artifact_uri, "pause_s": pause_s, "requests": []}
        handler = type("Handler", (Tracking,), attributes)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_the_token_goes_to_no_other_host(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    other, seen = serve()
    tracking, asked = serve(f"{other}/api/2.0/mlflow-artifacts/artifacts/0/run")
    for take in (
        lambda: artifacts.download(client(tracking), RUN, "model/data/bundle", tmp_path),
        lambda: artifacts.read(client(tracking), RUN, "source.patch"),
        lambda: artifacts.list_files(client(tracking), RUN, "reports"),
        lambda: artifacts.put_files(client(tracking), RUN, {"gates/report.json": b"{}"}),
    ):
        with pytest.raises(ArtifactRefused, match=r"keeps its artifacts at 'http.*start that server with --artifacts-"):
            take()
    assert asked.requests[0][1] == "Bearer secret" and seen.requests == []


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("mlflow-artifacts:/0/run/artifacts", True),
        ("mlflow-artifacts://mlflow.example:5000/0/run", True),
        ("https://mlflow.example:5000/api/2.0/mlflow-artifacts/artifacts/0", True),
        ("file:///srv/mlruns/0/run/artifacts", True),
        ("/srv/mlruns/0/run/artifacts", True),
        ("mlflow-artifacts://other.example:5000/0/run", False),
        ("mlflow-artifacts://mlflow.example:5001/0/run", False),
        ("https://mlflow.example/0/run", False),
        ("http://mlflow.example:5000/0/run", False),
        ("https://mlflow.example:5000@other.example/0/run", False),
        ("https://other.example:5000/0/run", False),
        ("ftp://mlflow.example:5000/0/run", False),
        ("s3://bucket/0/run", False),
        ("hdfs://mlflow.example:5000/0", False),
        ("https://other.example\\@mlflow.example:5000/0/run", False),
        ("mlflow-artifacts://other.example\\@mlflow.example:5000/0/run", False),
        ("https://mlflow.example:5000\t.other.example/0", False),
        ("https://mlflow.example:port/0", False),
        ("http://[/0", False),
    ],
)
def test_only_the_tracking_servers_own_place_is_used(uri: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    store = client("https://mlflow.example:5000")
    run = type("Run", (), {"info": type("Info", (), {"artifact_uri": uri})})
    monkeypatch.setattr(store, "get_run", lambda _: run)
    if allowed:
        assert artifacts.location(store, RUN) == uri
    else:
        with pytest.raises(ArtifactRefused, match="keeps its artifacts at"):
            artifacts.location(store, RUN)


def test_a_backslash_leads_the_token_nowhere(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the backslash stands the host for urllib3, behind it that for urllib.parse."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    other, seen = serve()
    tracking, handler = serve()
    for scheme in ("http", "mlflow-artifacts"):
        hosts = f"{other.removeprefix('http://')}\\@{tracking.removeprefix('http://')}"
        handler.artifact_uri = f"{scheme}://{hosts}/api/2.0/mlflow-artifacts/artifacts/0/run"
        with pytest.raises(ArtifactRefused, match="keeps its artifacts at"):
            artifacts.read(client(tracking), RUN, "source.patch")
    assert seen.requests == []


@pytest.mark.parametrize(
    ("pause_s", "limits", "words"),
    [
        (0.0, {"max_bytes": 1_000_000, "max_s": 60.0}, "is larger than the 1,000,000 bytes that are allowed"),
        (0.2, {"max_bytes": 1_000_000, "max_s": 4.0}, "took more than 4 s to download"),
    ],
)
def test_an_endless_artifact_is_given_up(
    serve: Any, tmp_path: Path, pause_s: float, limits: dict[str, Any], words: str
) -> None:
    tracking, _ = serve(pause_s=pause_s)
    began = time.monotonic()
    with pytest.raises(ArtifactRefused, match=words):
        artifacts.download(client(tracking), RUN, "model/data/bundle", tmp_path, **limits)
    assert time.monotonic() - began < 30
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 500_000_000


def version(**changes: Any) -> ModelVersion:
    values = {"number": "3", "run_id": RUN, "digest": DIGEST, "source": "models:/m-1/model", **changes}
    tags = [ModelVersionTag(registry.DIGEST, values["digest"])] if values["digest"] is not None else []
    named = {name: values[name] for name in ("run_id", "source")}
    return ModelVersion("convoy-fashion", values["number"], 0, tags=tags, **named)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"digest": None}, "has the tag digest '', expected is"),
        ({"digest": "../../etc"}, "has the tag digest '../../etc', expected is"),
        ({"digest": f"{DIGEST}\n"}, "has the tag digest"),
        ({"digest": DIGEST.upper()}, "has the tag digest"),
        ({"number": "1\r\nX-Evil: 1"}, "has version"),
        ({"number": "1" * 10}, "has version"),
        ({"number": "\u0661"}, "has version"),
        ({"run_id": "../other"}, "has run_id '../other'"),
    ],
)
def test_a_malformed_version_is_refused(changes: dict[str, Any], words: str) -> None:
    assert registry.digest_of_version(version()) == DIGEST
    with pytest.raises(VersionInvalid, match=words):
        registry.digest_of_version(version(**changes))


@pytest.mark.parametrize("source", ["mlflow-artifacts:/0/..", "file:///x/other", "", "model\n"])
def test_a_model_elsewhere_is_refused(source: str) -> None:
    assert registry.model_folder(version(source="file:///m/0/run/artifacts/model-0a1b/")) == "model-0a1b"
    assert registry.model_folder(version(source=source)) == ""
    with (
        pytest.raises(VersionInvalid, match="not in a folder model"),
        registry.bundle_of(client("http://127.0.0.1:9"), version(source=source), []),
    ):
        pass


@pytest.fixture
def run_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[MlflowClient, str, Path]:
    """A client, a run of its local store, and the folder of that run's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_empty_store()
    run = store.create_run(mlflow_runs.experiment_of(store, "fashion"))
    folder = artifacts.folder_of(run)
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    return store, run.info.run_id, folder


@pytest.mark.parametrize("name", ["dvc.lock", "reports/curves.csv", "model/data/bundle/card.json"])
def test_files_are_never_written_through_a_link(run_of_a_store: Any, tmp_path: Path, name: str) -> None:
    store, run_id, folder = run_of_a_store
    victim = tmp_path / "elsewhere"
    (victim / "data/bundle").mkdir(parents=True)
    for file in ("dvc.lock", "curves.csv", "data/bundle/card.json"):
        (victim / file).write_text("mine")
    first = name.partition("/")[0]
    (folder / first).symlink_to(victim / first if first == name else victim)
    with suppress(Exception):
        artifacts.put_files(store, run_id, {name: b"theirs"})
    assert {path.read_text() for path in victim.rglob("*") if path.is_file()} == {"mine"}


@pytest.mark.parametrize("odd", ["a#b", "a?b", "a%20b", "%2e%2e", "a b", "ä"])
def test_folders_of_any_name_are_listed(run_of_a_store: Any, odd: str) -> None:
    store, run_id, folder = run_of_a_store
    (folder / odd / "below").mkdir(parents=True)
    (folder / odd / "below" / "file").write_bytes(b"123")
    (folder / "file").write_bytes(b"1")
    assert artifacts.list_files(store, run_id) == {"file": 1, f"{odd}/below/file": 3}
    assert artifacts.list_files(store, run_id, odd) == {f"{odd}/below/file": 3}


def test_gc_names_a_champion_without_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_empty_store()
    run = store.create_run(store.create_experiment("convoy-fashion"))
    store.create_registered_model("convoy-fashion")
    store.create_model_version("convoy-fashion", f"runs:/{run.info.run_id}/model", run.info.run_id)
    store.set_registered_model_alias("convoy-fashion", "champion", "1")
    with pytest.raises(VersionInvalid, match="has the tag digest '', expected is"):
        retention.kept_digests(store, "fashion", 90, datetime.now(UTC))
