"""What is built, published, deployed and serving, and what to type next; of whatever is there, and of what is not."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import built_pipeline
import pytest
import tiny_bundles
from mlflow_server import Server
from mlflow_store import open_empty_store
from test_ports import free_port

from convoy.bundles.bundle import Release, digest_of
from convoy.operations import smoke_request, status, supervisor
from convoy.release import deployment, journal, publish
from convoy.release.decision import Grounds, Model
from convoy.tracking import mlflow_runs, store

pytestmark = pytest.mark.mlflow


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def look(port: int = 1) -> status.Status:
    return next(found for found in status.read_status(port) if found.task == "fashion")


def steps(found: status.Status) -> list[str]:
    return [step.command for step in found.next]


def release_of(folder: Path, version: str = "1") -> Release:
    return Release(
        name="convoy-fashion", version=version, run_id="r", digest=digest_of(folder), promoted_at="2026-01-02"
    )


def test_with_nothing_at_all_it_says_what_to_type_and_makes_nothing(place: Path) -> None:
    assert status.read_status(1) == []
    said: list[str] = []
    status.print_status([], said.append)
    assert said == [
        "params.yaml is missing; run this in the folder of Convoy that has it; no task is deployed here either"
    ]
    built_pipeline.write_params(place, "fashion")
    found = look()
    assert steps(found) == ["dvc repro"]
    assert found.built.remark == "nothing: bundles/fashion is not there"
    assert "mlflow.db is missing" in found.published.remark and "does not answer" in found.serving.remark
    assert [path.name for path in place.iterdir()] == ["params.yaml"]


def test_what_is_built_and_not_published_is_to_be_published(place: Path) -> None:
    built_pipeline.lay(place)
    found = look()
    assert found.built.digest == digest_of(Path("bundles/fashion")) and steps(found) == ["python -m convoy publish"]


@pytest.mark.process
def test_after_publish_only_the_service_is_missing_and_a_challenger_says_how_it_would_serve(place: Path) -> None:
    built_pipeline.lay(place)
    open_empty_store()
    publish.publish(mlflow_runs.open_store(), lambda line: None, ["fashion"])
    found = look()
    assert (found.published.version, found.published.remark) == ("1", "champion")
    assert found.deployed.version == "1" and found.deployed.since == journal.read("fashion")[0].at
    assert steps(found) == ["python -m convoy serve --port 1"]
    built_pipeline.lay(place, shift=40, version=2)
    publish.publish(mlflow_runs.open_store(), lambda line: None, ["fashion"])
    found = look()
    assert found.published.remark == "challenger" and (found.published.version, found.deployed.version) == ("2", "1")
    assert steps(found)[0] == "python -m convoy promote --task fashion --version 2 --reason '...'"
    assert "it is worse by" in found.next[0].why
    mlflow_runs.open_store().set_registered_model_alias("convoy-fashion", "champion", "2")
    built_pipeline.lay(place)
    assert steps(look())[0] == "python -m convoy publish"  # the alias is wrong
    assert [each.version for each in store.read_registry("fashion").versions] == ["1", "2"]


def test_a_broken_deployed_bundle_a_cut_off_decision_and_a_rewritten_history_are_told(place: Path) -> None:
    tiny_bundles.write_image_bundle(Path("one"))
    tiny_bundles.write_image_bundle(Path("two"), tiny_bundles.IMAGE_CARD.model_copy(update={"params": {"epochs": 2}}))
    deployment.deploy("fashion", Path("one"), release_of(Path("one")))
    deployment.copy_bundle("fashion", Path("two"), release_of(Path("two"), "2"))
    one, two = (Model(version=str(n), digest=digest_of(Path(name))) for n, name in ((1, "one"), (2, "two")))
    journal.append("fashion", one, two, Grounds("promotion", "better"))
    assert look().next[0].why.startswith("completes what was cut off: promotion from version 1")
    journal.mark("fashion", journal.read("fashion")[0], "undone")
    Path("deployed/fashion/current/model.onnx").write_bytes(b"half")
    found = look()
    assert found.deployed.remark.startswith("broken: ") and steps(found)[0] == "python -m convoy publish"
    path = journal.path_of("fashion")
    path.write_bytes(path.read_bytes().replace(b"better", b"worse!"))
    assert "line 2: this was not appended" in str(look().last_decision)
    Path("mlflow-store").mkdir()
    Path("mlflow-store/mlflow.db").write_text("no database")
    assert "mlflow.db cannot be read" in look().published.remark
    Path("dvc.lock").write_text("[")
    assert "dvc.lock is not a DVC lock file" in look().built.remark
    shutil.rmtree("deployed/fashion/" + one.digest)
    assert look().deployed.remark.startswith("broken: ")


class _Service(BaseHTTPRequestHandler):
    answer: ClassVar[Any] = {}
    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers["Authorization"])
        content = json.dumps(self.answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_what_answers_otherwise_than_deployed_is_told(service: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_bundles.write_image_bundle(Path("one"))
    deployment.deploy("fashion", Path("one"), release_of(Path("one")))
    other = release_of(Path("one")).model_copy(update={"digest": "2" * 64, "version": "2"})
    monkeypatch.setenv("CONVOY_API_KEY", "sixteen characters")
    _Service.answer = {"tasks": {"fashion": {"state": "ready", "release": other.model_dump()}}}
    found = look(service)
    assert (found.serving.version, found.serving.digest) == ("2", "2" * 64)
    assert _Service.asked[-1] == "Bearer sixteen characters"
    assert steps(found) == ["dvc repro", "python -m convoy status"]
    _Service.answer = {"tasks": {"fashion": {"state": "unavailable", "reason": "fashion/current is missing"}}}
    assert "fashion/current is missing" in look(service).serving.remark
    _Service.answer = [1, 2]
    assert "is not Convoy's" in look(service).serving.remark


def test_a_server_of_another_protocol_is_told() -> None:
    tiny_bundles.write_image_bundle(Path("one"))
    deployment.deploy("fashion", Path("one"), release_of(Path("one")))
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert "does not answer" in look(other.getsockname()[1]).serving.remark
        thread.join()


def test_records_too_deep_and_folders_are_told() -> None:
    tiny_bundles.write_image_bundle(Path("one"))
    deployment.deploy("fashion", Path("one"), release_of(Path("one")))
    journal.append("fashion", *[Model(version="1", digest=digest_of(Path("one")))] * 2, Grounds("promotion", "first"))
    with journal.path_of("fashion").open("ab") as stream:
        stream.write(b"[" * 100_000 + b"\n")
    release = Path("deployed/fashion/current/release.json")
    release.unlink()
    release.mkdir()
    assert look().deployed.remark.startswith("broken: ")
    Path("deployed/fashion/current/manifest.json").write_bytes(b"[" * 100_000)
    assert look().deployed.remark.startswith("broken: ")


@pytest.mark.process
def test_a_real_service_and_a_real_mlflow_server_are_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in built_pipeline.DATA:
        built_pipeline.lay(place, task)
    client = open_empty_store()
    publish.publish(client, lambda line: None)
    mlflow = Server()
    mlflow.start()
    port = free_port()
    repository = Path(__file__).parents[1]
    environment = supervisor.environment() | {"CONVOY_DEPLOYED": str(Path("deployed").absolute())}
    words = [word for word in supervisor.command("serve", port)]
    with subprocess.Popen(words, cwd=repository, env=environment, stdout=-3, stderr=-3) as server:
        try:
            assert smoke_request.wait_until_ready(
                [f"http://127.0.0.1:{port}/readyz"], 120, lambda: server.poll() is not None
            )
            monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
            variables = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.uri}
            asked = [sys.executable, "-m", "convoy", "status", "--json", "--port", str(port)]
            done = subprocess.run(asked, env=variables, capture_output=True, text=True, check=True, timeout=60)
            for task, found in json.loads(done.stdout).items():
                digest = digest_of(Path("bundles", task))
                for name in ("built", "published", "deployed", "serving"):
                    assert found[name]["digest"] == digest, (task, name)
                assert found["next"] == []
                assert found["serving"]["since"] == found["deployed"]["since"]
        finally:
            server.terminate()
            mlflow.kill()
    assert "does not answer" in look(port).serving.remark
    assert "does not answer" in look(port).published.remark


def test_a_look_loads_neither_mlflow_nor_torch() -> None:
    script = "import convoy.operations.status, convoy.release.rollback, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"mlflow", "torch", "dvc", "sqlalchemy"} & set(done.stdout.split())
