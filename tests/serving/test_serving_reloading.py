"""A promotion reaches a service that is running: no request fails, none gets an answer of two models."""

import gc
import logging
import resource
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import psutil
import pytest
import tiny_bundles
from conftest import WRITERS, Server, deploy, serve, switch, without_id
from prometheus_client import REGISTRY

from serving import metrics
from serving.deployed import Deployed, Unavailable, load_task
from serving.kinds.image import predict as predict_images
from serving.metrics import FLUSH_EVERY_S
from serving.models import DeployedModels
from serving.reloading import Reloader

PNG = tiny_bundles.png(200)
WITHIN_S = 5  # how soon a promotion must serve


def write_other(folder: Path) -> None:
    """The same model under other names for its labels, so that every answer tells whose it is."""
    card = tiny_bundles.IMAGE_CARD.model_copy(update={"labels": ("black", "grey", "white")})
    tiny_bundles.write_image_bundle(folder, card)


def write_another_text(folder: Path) -> None:
    tiny_bundles.write_text_bundle(folder, shift=1.0)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for task in WRITERS:
        deploy(tmp_path, task)
    return tmp_path


@pytest.fixture
def models(place: Path) -> DeployedModels:
    return DeployedModels()


@pytest.fixture
def reloader(models: DeployedModels, place: Path) -> Reloader:
    started = Reloader(models, place)
    started.check()
    return started


def digest(models: DeployedModels) -> str:
    model = models.by_task["fashion"]
    assert isinstance(model, Deployed)
    return model.release.digest


def reloads(outcome: str) -> float:
    return REGISTRY.get_sample_value("convoy_reloads_total", {"task": "fashion", "outcome": outcome}) or 0.0


def test_a_promotion_answers_and_the_old_model_leaves_memory(
    models: DeployedModels, reloader: Reloader, place: Path
) -> None:
    old, text, before = weakref.ref(models.by_task["fashion"]), models.by_task["reviews"], reloads("loaded")
    folder = deploy(place, "fashion", write_other)
    reloader.check()
    assert digest(models) == folder.name and reloads("loaded") == before + 1
    assert models.by_task["reviews"] is text
    gc.collect()
    assert old() is None


def test_a_bad_bundle_is_refused_and_the_old_one_goes_on_answering(
    models: DeployedModels, reloader: Reloader, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving, before = digest(models), reloads("refused")
    folder = deploy(place, "fashion", write_other)
    (folder / "model.onnx").write_bytes(b"")
    with caplog.at_level(logging.ERROR, "bentoml.convoy"):
        reloader.check()
        reloader.check()
    assert digest(models) == serving and reloads("refused") == before + 1
    assert "fashion: version 7 goes on answering; refused:" in caplog.text and "model.onnx" in caplog.text
    switch(place, "fashion", serving)
    reloader.check()
    assert digest(models) == serving


def test_a_bundle_that_is_gone_leaves_the_old_model_answering(
    models: DeployedModels, reloader: Reloader, place: Path
) -> None:
    serving = digest(models)
    switch(place, "fashion", "nowhere")
    reloader.check()
    assert digest(models) == serving


def test_a_folder_that_is_gone_as_a_whole_ends_no_task(
    models: DeployedModels, reloader: Reloader, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As while a backup is restored."""
    served = dict(models.by_task)
    away = place.rename(place.with_name("away"))
    reloader.check()
    reloader.check()
    assert models.by_task == served and caplog.text.count("cannot be listed") == 1
    away.rename(place)
    reloader.check()
    assert list(models.by_task) == list(served) and models.ready


def test_a_task_that_is_removed_and_its_model_are_forgotten(
    models: DeployedModels, reloader: Reloader, place: Path
) -> None:
    old = weakref.ref(models.by_task["fashion"])
    (place / "fashion" / "current").unlink()
    reloader.check()
    assert list(models.by_task) == ["reviews", "reviews-stream"] and models.ready
    assert not [path for path in models.by_path if "fashion" in path]
    gc.collect()
    assert old() is None
    deploy(place, "fashion", write_other)
    reloader.check()
    assert list(models.by_task) == ["fashion", "reviews", "reviews-stream"] and models.ready


def test_a_release_that_is_written_anew_is_told_in_the_answers(
    models: DeployedModels, reloader: Reloader, place: Path
) -> None:
    release = place / "fashion" / digest(models) / "release.json"
    fresh = release.with_name("fresh")
    fresh.write_text(release.read_text().replace('"version":"7"', '"version":"8"'))
    fresh.replace(release)
    reloader.check()
    assert b'"version":"8"' in predict_images(models.by_task["fashion"], [PNG], None)  # type: ignore[arg-type]


def test_what_was_not_there_at_the_start_answers_once_it_is_deployed(tmp_path: Path) -> None:
    models = DeployedModels()
    reloader = Reloader(models, tmp_path)
    reloader.check()
    assert models.by_task == {} and not models.ready
    deploy(tmp_path, "fashion")
    reloader.check()
    assert isinstance(models.by_task["fashion"], Deployed) and models.ready
    (deploy(tmp_path, "reviews") / "model.onnx").unlink()
    deploy(tmp_path, "reviews-stream")
    reloader.check()
    assert isinstance(models.by_task["reviews"], Unavailable) and not models.ready
    deploy(tmp_path, "reviews", write_another_text)
    reloader.check()
    assert models.ready


def test_nothing_is_loaded_where_nothing_has_changed(reloader: Reloader, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr("serving.reloading.load_task", lambda *about: loaded.append(about))
    reloader.check()
    assert loaded == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr("serving.reloading.time", fake)
    return fake


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks whose load is tried, as it happens."""
    tasks: list[str] = []

    def load(root: Path, task: str, logged_reason: str) -> Deployed | Unavailable:
        tasks.append(task)
        return load_task(root, task, logged_reason)

    monkeypatch.setattr("serving.reloading.load_task", load)
    return tasks


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Every file that this process would open fails with EMFILE."""
    metrics.set_up()  # as in a worker
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_load_without_descriptors_is_tried_again(
    models: DeployedModels, place: Path, clock: Clock, tried: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    reloader = Reloader(models, place)
    reloader.check()
    serving, refused, loaded = digest(models), reloads("refused"), reloads("loaded")
    folder = deploy(place, "fashion", write_other)
    waits_s = []
    with no_descriptor_left():
        reloader.check()
        for _ in range(8):
            before_s = clock.now_s
            tried.clear()
            while not tried:
                assert clock.now_s < before_s + 100, "it is tried no more"
                clock.now_s += 1
                reloader.check()
            waits_s.append(clock.now_s - before_s)
            assert digest(models) == serving
    assert waits_s == [1, 2, 4, 8, 16, 32, 60, 60]
    clock.now_s += 60
    reloader.check()
    assert digest(models) == folder.name
    assert caplog.text.count("fashion cannot be loaded") == 1 and caplog.text.count("goes on answering") == 1
    assert (reloads("refused"), reloads("loaded")) == (refused + 1, loaded + 1)


def test_a_start_without_descriptors_is_tried_again(models: DeployedModels, place: Path, clock: Clock) -> None:
    reloader = Reloader(models, place)
    with no_descriptor_left():
        reloader.check()
    assert not models.ready
    clock.now_s += 1
    reloader.check()
    assert models.ready


def test_an_invalid_bundle_is_tried_rarely(
    models: DeployedModels, place: Path, clock: Clock, tried: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    reloader = Reloader(models, place)
    reloader.check()
    folder = deploy(place, "fashion", write_other)
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(b"")
    tried.clear()
    for _ in range(1000):
        reloader.check()
        clock.now_s += 1
    assert tried == ["fashion"] * 4 and caplog.text.count("goes on answering; refused:") == 1
    (folder / "model.onnx").write_bytes(whole)  # as where a disk that gave wrong bytes was repaired
    clock.now_s += 300
    reloader.check()
    assert digest(models) == folder.name


def test_an_error_of_one_look_does_not_end_the_following(
    models: DeployedModels, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.reloading.CHECK_EVERY_S", 0.01)
    reloader = Reloader(models, place)
    reloader.start()
    failed = Event()

    def fail(*_: object, **__: object) -> None:
        failed.set()
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr("serving.reloading._read_state", fail)
        assert failed.wait(10)
    folder = deploy(place, "fashion", write_other)
    deadline = time.monotonic() + 10
    while digest(models) != folder.name:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    reloader.stop()


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path, dict[str, bytes]]]:
    """A real server, the folder it follows, and what each of two bundles answers, by digest."""
    root = tmp_path_factory.mktemp("followed")
    for task in ("reviews", "reviews-stream"):
        deploy(root, task)
    answers = {}
    for write in (write_other, tiny_bundles.write_image_bundle):
        folder = deploy(root, "fashion", write)
        model = load_task(root, "fashion")
        assert isinstance(model, Deployed)
        answers[folder.name] = predict_images(model, [PNG], None)
    with serve(root, tmp_path_factory.mktemp("server")) as server:
        yield server, root, answers


def ask(url: str, post: Callable[..., httpx.Response] = httpx.post) -> httpx.Response:
    return post(f"{url}/v1/fashion/predict", content=PNG, headers={"content-type": "image/png"}, timeout=10)


@pytest.mark.process
def test_swaps_under_load_fail_no_request_and_every_answer_is_that_of_the_version_it_names(
    followed: tuple[Server, Path, dict[str, bytes]],
) -> None:
    server, root, answers = followed
    ended = Event()

    def keep_asking(_: int) -> list[httpx.Response]:
        received = []
        # A connection for each request, as httpx.post makes it, without the TLS context that takes most of its time.
        with httpx.Client(limits=httpx.Limits(max_keepalive_connections=0)) as client:
            while not ended.is_set():
                received.append(ask(server.url, client.post))
                time.sleep(0.005)
        return received

    with ThreadPoolExecutor(4) as pool:
        asking = pool.map(keep_asking, range(4))
        waits = []
        try:
            for wanted in [*answers] * 3:
                switch(root, "fashion", wanted)
                began = time.monotonic()
                while without_id(ask(server.url)) != answers[wanted]:
                    assert time.monotonic() - began < WITHIN_S
                    time.sleep(0.02)
                waits.append(time.monotonic() - began)
        finally:
            ended.set()
        all_responses = [response for responses in asking for response in responses]
    assert len(all_responses) > 100 and {response.status_code for response in all_responses} == {200}
    for response in all_responses:
        assert without_id(response) == answers[response.json()["model"]["digest"]]
    assert {response.json()["model"]["digest"] for response in all_responses} == set(answers)
    print(f"\n{len(waits)} swaps, followed after at most {max(waits):.2f} s; {len(all_responses)} answers, none failed")


@pytest.mark.process
def test_a_bad_promotion_is_counted_and_the_old_model_goes_on(
    followed: tuple[Server, Path, dict[str, bytes]],
) -> None:
    server, root, answers = followed
    serving = ask(server.url)
    (root / "fashion" / "bad").mkdir()
    switch(root, "fashion", "bad")
    refused = 'convoy_reloads_total{outcome="refused",task="fashion"} 1.0'
    deadline = time.monotonic() + WITHIN_S
    while refused not in httpx.get(f"{server.url}/metrics").text:
        assert time.monotonic() < deadline, httpx.get(f"{server.url}/metrics").text
        time.sleep(0.1)
    assert without_id(ask(server.url)) == without_id(serving) and without_id(serving) in answers.values()
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path, list[str]]]:
    """A real server of two workers, the folder they follow, and the digests of two bundles in it."""
    root = tmp_path_factory.mktemp("followed by two")
    for task in ("reviews", "reviews-stream"):
        deploy(root, task)
    digests = [deploy(root, "fashion", write).name for write in (write_other, tiny_bundles.write_image_bundle)]
    with serve(root, tmp_path_factory.mktemp("server"), CONVOY_WORKERS="2") as server:
        yield server, root, digests


def workers_of(server: Server) -> dict[int, psutil.Process]:
    """The processes that have loaded models, by their id."""
    children = psutil.Process(server.pid).children(recursive=True)
    return {
        child.pid: child
        for child in children
        if child.memory_info().rss > 60e6 and child.status() != psutil.STATUS_ZOMBIE
    }


def answered(server: Server, count: int) -> list[str]:
    """The digests that answer on `count` connections of their own, so that both workers are asked."""
    return [ask(server.url).json()["model"]["digest"] for _ in range(count)]


@pytest.mark.process
def test_every_worker_follows_and_a_killed_one_comes_back_with_what_is_deployed_now(
    two_workers: tuple[Server, Path, list[str]],
) -> None:
    server, root, digests = two_workers
    for wanted in digests:
        switch(root, "fashion", wanted)
        time.sleep(WITHIN_S)
        assert set(answered(server, 40)) == {wanted}
    before = workers_of(server)
    victim = next(iter(before.values()))
    switch(root, "fashion", digests[0])
    victim.kill()
    deadline = time.monotonic() + 30
    while len(set(workers_of(server)) - {victim.pid}) < len(before):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(WITHIN_S)
    assert set(answered(server, 40)) == {digests[0]}


@pytest.mark.process
def test_the_metrics_of_all_workers_add_up_and_a_dead_one_leaves_none_waiting(
    two_workers: tuple[Server, Path, list[str]],
) -> None:
    server, _, _ = two_workers

    def counted() -> dict[str, float]:
        lines = [line for line in httpx.get(f"{server.url}/metrics").text.splitlines() if line.startswith("convoy_")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def total(name: str) -> float:
        return sum(value for key, value in counted().items() if key.startswith(name) and 'task="fashion"' in key)

    time.sleep(2 * FLUSH_EVERY_S)
    before = {name: total(name) for name in ("convoy_predictions_total", "convoy_answer_seconds_count")}
    answered(server, 30)
    time.sleep(2 * FLUSH_EVERY_S)  # what a worker has not brought yet dies with it
    next(iter(workers_of(server).values())).kill()
    time.sleep(1)
    answered(server, 30)
    time.sleep(2 * FLUSH_EVERY_S)
    for name, was in before.items():
        assert total(name) - was == 60, name
    assert total("convoy_confidence_bucket") > 0
    assert total("convoy_waiting_requests") == 0
    labels = {key for key in counted() if key.startswith("convoy_predictions_total")}
    assert all(f'label="{label}"' in " ".join(labels) for label in tiny_bundles.IMAGE_LABELS)
