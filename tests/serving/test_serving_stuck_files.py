"""Files that do not answer, or are away for a moment: the other tasks go on, and somebody says so."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import tiny_bundles
from conftest import WRITERS, deploy, serve, switch
from prometheus_client import REGISTRY

from serving import deployed, reloading
from serving.deployed import Deployed, Unavailable, load_task
from serving.models import DeployedModels
from serving.reloading import Reloader

SLOW = "has not been loaded within"
# The service, but that it opens a pipe where a bundle has one; that blocks, as a network folder does that hangs.
SERVICE_THAT_BLOCKS = """
from serving import deployed, reloading
deployed.refuse_odd_files = lambda folder: None
reloading.LIMIT_S = 1.0
from serving.service import service
"""


def write_another_text(folder: Path) -> None:
    tiny_bundles.write_text_bundle(folder, shift=1.0)


def write_other_image(folder: Path) -> None:
    card = tiny_bundles.IMAGE_CARD.model_copy(update={"labels": ("black", "grey", "white")})
    tiny_bundles.write_image_bundle(folder, card)


def deploy_a_pipe(root: Path, task: str) -> Path:
    """Let a bundle serve whose model is a pipe that nobody writes to."""
    folder = root / task / "pipe"
    WRITERS[task](folder)
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    switch(root, task, "pipe")
    return folder


def open_for_writing(pipe: Path) -> None:
    """Let whoever waits for the pipe go on; it reads nothing."""
    os.close(os.open(pipe, os.O_WRONLY))


def until(is_so: Callable[[], bool], within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def opens_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "refuse_odd_files", lambda _: None)
    monkeypatch.setattr(reloading, "LIMIT_S", 0.2)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for task in WRITERS:
        deploy(tmp_path, task)
    return tmp_path


def reason(models: DeployedModels, task: str) -> str:
    model = models.by_task[task]
    assert isinstance(model, Unavailable)
    return model.reason


def counted(task: str, outcome: str) -> float:
    return REGISTRY.get_sample_value("convoy_reloads_total", {"task": task, "outcome": outcome}) or 0.0


@pytest.mark.usefixtures("opens_pipes")
def test_a_file_that_blocks_stops_no_other_task(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = deploy_a_pipe(place, "fashion") / "model.onnx"
    models = DeployedModels()
    reloader = Reloader(models, place)
    reloader.check()
    assert SLOW in reason(models, "fashion") and str(place) not in reason(models, "fashion")
    old = models.by_task["reviews"]
    deploy(place, "reviews", write_another_text)
    for _ in range(3):
        reloader.check()
    assert isinstance(models.by_task["reviews"], Deployed) and models.by_task["reviews"] is not old
    assert caplog.text.count(SLOW) == 1
    deploy(place, "fashion", write_other_image)  # another bundle is not kept waiting by the one that blocks
    reloader.check()
    assert models.ready
    open_for_writing(pipe)


@pytest.mark.usefixtures("opens_pipes")
def test_a_model_answers_on_while_the_next_one_blocks(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = DeployedModels()
    reloader = Reloader(models, place)
    reloader.check()
    old, refused = models.by_task["fashion"], counted("fashion", "refused")
    pipe = deploy_a_pipe(place, "fashion") / "model.onnx"
    reloader.check()
    reloader.check()
    assert models.by_task["fashion"] is old and models.ready
    assert "version 7 goes on answering; refused: fashion/current has not been loaded" in caplog.text
    assert counted("fashion", "refused") == refused + 1
    open_for_writing(pipe)  # what is read then is no model: refused for another reason, and counted no second time
    until(lambda: reloader.check() or "differs" in caplog.text)  # type: ignore[func-returns-value]
    assert models.by_task["fashion"] is old and counted("fashion", "refused") == refused + 1


def test_a_load_that_ends_late_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "LIMIT_S", 0.05)

    def load_slowly(root: Path, task: str, logged_reason: str) -> Deployed | Unavailable:
        time.sleep(0.5 if task == "fashion" else 0)
        return load_task(root, task, logged_reason)

    monkeypatch.setattr(reloading, "load_task", load_slowly)
    models = DeployedModels()
    reloader = Reloader(models, place)
    reloader.check()
    assert SLOW in reason(models, "fashion")
    until(lambda: reloader.check() or models.ready)  # type: ignore[func-returns-value]


def test_a_folder_that_does_not_answer_ends_no_task(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    models = DeployedModels()
    reloader = Reloader(models, place)
    reloader.check()
    monkeypatch.setattr(reloading, "LIMIT_S", 0.05)
    pipe = place / "pipe"
    os.mkfifo(pipe)
    with monkeypatch.context() as patch:
        patch.setattr(reloading, "deployed_tasks", lambda _: [pipe.read_text()])
        reloader.check()
    reloader.check()
    assert models.ready and caplog.text.count("has not answered for") == 1
    open_for_writing(pipe)


def test_a_task_that_was_away_while_it_was_loaded_is_tried_soon(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = place.parent / f"{place.name} away"
    real = deployed.Predictor

    def move_away_and_back(folder: Path, threads: int) -> object:
        (place / "fashion").rename(away)
        try:
            return real(folder, threads)
        finally:
            away.rename(place / "fashion")

    models = DeployedModels()
    reloader = Reloader(models, place)
    with monkeypatch.context() as patch:
        patch.setattr(deployed, "Predictor", move_away_and_back)
        patch.setattr(reloading, "deployed_tasks", lambda _: ["fashion"])
        reloader.check()
    assert "is missing" in reason(models, "fashion")
    until(lambda: reloader.check() or models.ready, within_s=3)  # type: ignore[func-returns-value]


def test_tasks_that_appear_later_are_counted(tmp_path: Path) -> None:
    deploy(tmp_path, "reviews")
    at_start, later = counted("reviews", "loaded"), counted("fashion", "loaded")
    refused = counted("reviews-stream", "refused")
    reloader = Reloader(DeployedModels(), tmp_path)
    reloader.check()
    deploy(tmp_path, "fashion", write_other_image)
    (deploy(tmp_path, "reviews-stream") / "model.onnx").write_bytes(b"")
    reloader.check()
    reloader.check()
    assert counted("reviews", "loaded") == at_start and counted("fashion", "loaded") == later + 1
    assert counted("reviews-stream", "refused") == refused + 1


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the images' model is a pipe."""
    root = tmp_path / "deployed"
    for task in ("reviews", "reviews-stream"):
        deploy(root, task)
    deploy_a_pipe(root, "fashion")
    yield root


@pytest.mark.process
def test_a_service_with_a_file_that_blocks_answers_and_ends(pipes: Path, tmp_path: Path) -> None:
    (tmp_path / "blocking.py").write_text(SERVICE_THAT_BLOCKS)
    code = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    with serve(pipes, tmp_path, "blocking:service", cwd=tmp_path, ready_path="/livez", PYTHONPATH=code) as server:
        tasks = httpx.get(f"{server.url}/readyz").json()["tasks"]
        assert SLOW in tasks["fashion"]["reason"] and tasks["reviews"] == {"state": "ready"}
        assert SLOW in httpx.get(f"{server.url}/v1/models").json()["tasks"]["fashion"]["reason"]
        assert f"fashion: fashion/current {SLOW}" in server.log.read_text()
        wanted = deploy(pipes, "reviews", write_another_text).name
        until(lambda: httpx.get(f"{server.url}/v1/models/reviews").json()["release"]["digest"] == wanted, 5)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 8  # SIGTERM, to the end of the last process


@pytest.mark.process
def test_a_pipe_in_a_bundle_is_refused_unopened(pipes: Path, tmp_path: Path) -> None:
    with serve(pipes, tmp_path, ready_path="/livez") as server:
        assert httpx.get(f"{server.url}/readyz").json()["tasks"]["fashion"]["reason"] == (
            "fashion/pipe/model.onnx is no regular file; deploy the bundle again"
        )
        deploy(pipes, "fashion", write_other_image)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200, 5)
