"""A real MLflow server that is away, is killed, hangs: training goes on, and publishing brings each point once."""

import csv
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import tiny_training
import yaml
from mlflow import MlflowClient
from mlflow_server import WITHIN_S, Server
from mlflow_store import open_empty_store

from convoy.lineage import workspace
from convoy.tracking import mlflow_runs
from convoy.tracking.provenance import md5_of
from convoy.tracking.run_content import RunContent, curves_of
from convoy.training import follower
from convoy.training.follower import Follower

pytestmark = [pytest.mark.process, pytest.mark.mlflow]
ROOT = Path.cwd()
KEY = "a" * 64
PARAMS = {"learning": {"epochs": 9}}
TASK = tiny_training.DATA["image"]
CANDIDATE = tiny_training.named("image", "cnn")
HELD_UP_S = 0.05  # the most that an epoch may be held up


class SlowProxy:
    """Passes bytes on to the server, each answer `delay_s` late."""

    def __init__(self, port: int, delay_s: float) -> None:
        self.port, self.delay_s = port, delay_s
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                for source, target, delay_s in ((client, server, 0), (server, client, self.delay_s)):
                    threading.Thread(target=self._pass_on, args=(source, target, delay_s), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, delay_s: float) -> None:
        with suppress(OSError), source, target:
            while content := source.recv(65536):
                time.sleep(delay_s)
                target.sendall(content)


class Training:
    """A loop of epochs as training has it, which notes what the side process cost it."""

    def __init__(self, rows: Sequence[dict[str, float]] = ()) -> None:
        self.follower = Follower()
        self.rows = list(rows)
        self.held_up_s = 0.0
        self._began = time.monotonic()
        self.follower.start("fashion", "fashion-cnn", "cnn", KEY, PARAMS, self.rows)
        self.process = self.follower.process
        assert self.process is not None

    def epochs(self, number: int, each_s: float = 0.1) -> None:
        for _ in range(number):
            time.sleep(each_s)
            elapsed_s = round(time.monotonic() - self._began, 2)
            row = {"epoch": len(self.rows), "train_loss": 1 / (1 + len(self.rows)), "elapsed_s": elapsed_s}
            self.rows.append(row)
            began = time.perf_counter()
            self.follower.epoch(row)
            self.held_up_s = max(self.held_up_s, time.perf_counter() - began)

    def end(self) -> float:
        began = time.perf_counter()
        self.follower.end("FINISHED")
        return time.perf_counter() - began


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("outage"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("CONVOY_FOLLOW", raising=False)
        open_empty_store()
        server = Server()
        yield server
        server.kill()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """Looks into the store past the server; empty at each start."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    client = MlflowClient(f"sqlite:///{Path('mlflow-store/mlflow.db').absolute()}")
    yield client
    for run in runs(client):
        client.delete_run(run.info.run_id)


def runs(client: MlflowClient) -> list:
    experiments = [each.experiment_id for each in client.search_experiments(filter_string="name LIKE 'convoy-%'")]
    return client.search_runs(experiments) if experiments else []


def epochs_there(client: MlflowClient) -> list[int]:
    found = [client.get_metric_history(run.info.run_id, "curves/train_loss") for run in runs(client)]
    return [point.step for history in found for point in history]


def wait_for_epochs(client: MlflowClient, number: int, folder: Path = Path()) -> None:
    deadline = time.monotonic() + WITHIN_S
    while len(epochs_there(client)) < number:
        logs = (folder / ".run/training").glob("*.log")
        assert time.monotonic() < deadline, "\n".join(log.read_text() for log in logs)
        time.sleep(0.2)


def publish(server: Server, training: Training) -> int:
    """What `python -m convoy publish` does with the run; gives the number of points that were missing."""
    client = MlflowClient(server.uri, server.uri)
    began_ms = round(time.time() * 1000) - 60_000
    content = RunContent("fashion-cnn", KEY, began_ms, began_ms + 9_000, curves=curves_of(training.rows))
    return mlflow_runs.complete_run(client, mlflow_runs.experiment_of(client, "fashion"), content)[1]["metric points"]


def report(name: str, training: Training, live: int, end_s: float, added: int) -> None:
    print(
        f"\n{name:<28}epochs {len(training.rows)}, live {live}, added by publish {added}, "
        f"longest call {training.held_up_s * 1000:.1f} ms, end {end_s:.2f} s"
    )


def check(client: MlflowClient, training: Training) -> None:
    """One run, finished, and each point once, with the value and time that training gave it."""
    (run,) = runs(client)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "curves/train_loss")
    found = [(point.step, point.timestamp - run.info.start_time, point.value) for point in history]
    assert found == curves_of(training.rows)["curves/train_loss"]
    assert training.held_up_s < HELD_UP_S


def test_down_at_the_start(server: Server, client: MlflowClient) -> None:
    server.kill()
    training = Training()
    training.epochs(5)
    assert epochs_there(client) == []
    server.start()
    training.epochs(1)
    wait_for_epochs(client, 6)
    training.epochs(2)
    end_s = training.end()
    live = len(epochs_there(client))
    report("down at the start:", training, live, end_s, publish(server, training))
    check(client, training)


def test_killed_in_the_middle_and_started_again(server: Server, client: MlflowClient) -> None:
    server.ensure()
    training = Training()
    training.epochs(3)
    wait_for_epochs(client, 3)
    server.kill()
    training.epochs(4)
    assert len(epochs_there(client)) == 3
    server.start()
    training.epochs(1)
    wait_for_epochs(client, 8)
    end_s = training.end()
    live = len(epochs_there(client))
    report("killed and started again:", training, live, end_s, publish(server, training))
    check(client, training)


@pytest.mark.parametrize("delay_s", [0.5, 7])  # answers come late; later than the side process waits
def test_slow(server: Server, client: MlflowClient, delay_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    server.ensure()
    proxy = SlowProxy(server.port, delay_s)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    training = Training()
    training.epochs(8, each_s=0.5)
    if delay_s < 1:
        wait_for_epochs(client, 1)
    training.epochs(2)
    end_s = training.end()
    assert end_s < follower.GRACE_S + 1
    assert training.process is not None and training.process.wait() != 0  # nothing goes on behind publish
    live = len(epochs_there(client))
    report(f"answers {delay_s} s late:", training, live, end_s, publish(server, training))
    proxy.listener.close()
    check(client, training)


KILLED = f"""
import time
from convoy.training.follower import Follower
follower = Follower()
follower.start("fashion", "fashion-cnn", "cnn", "{KEY}", {PARAMS})
follower.epoch({{"epoch": 0, "train_loss": 1.0, "elapsed_s": 0.1}})
follower.epoch({{"epoch": 1, "train_loss": 0.5, "elapsed_s": 0.2}})
time.sleep({WITHIN_S})
"""


def test_a_training_that_is_killed_goes_on_in_the_same_run(server: Server, client: MlflowClient) -> None:
    server.ensure()
    with subprocess.Popen([sys.executable, "-c", KILLED]) as process:
        wait_for_epochs(client, 2)
        process.kill()
    deadline = time.monotonic() + WITHIN_S
    while (killed := runs(client)[0]).info.status != "KILLED":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    training = Training([{"epoch": 0, "train_loss": 1.0, "elapsed_s": 0.1}])  # the second was not in a checkpoint
    training.epochs(3)
    wait_for_epochs(client, 4)
    training.end()
    publish(server, training)
    (run,) = runs(client)
    assert run.info.run_id == killed.info.run_id and run.info.status == "FINISHED"
    assert sorted(epochs_there(client)) == [0, 1, 2, 3]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Iterator["subprocess.Popen[bytes]"]:
    """A real training of eight epochs, followed to the server, which is held after the fourth until it may `go`."""
    tiny_training.lay(tmp_path, "image", "cnn", epochs=8, patience=8)
    code = [workspace.environment(ROOT)["PYTHONPATH"], str(Path(__file__).parent)]
    for name, text in {"PYTHONPATH": os.pathsep.join(code), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    server.ensure()
    command = [sys.executable, "-m", "followed_training", CANDIDATE, "3"]
    with subprocess.Popen(command, cwd=tmp_path) as training:
        yield training
        training.kill()


def write_lock(folder: Path) -> None:
    """What DVC notes of the training in `folder`."""
    reports = [f"reports/{TASK}/{CANDIDATE}/{name}" for name in ("metrics.json", "curves.csv")]
    sides = {
        "deps": [f"data/prepared/{TASK}/{split}.arrow" for split in ("train", "validation")],
        "outs": [f"candidates/{TASK}/{CANDIDATE}", *reports],
    }
    stage = {side: [{"path": path, "md5": md5_of(folder / path)} for path in paths] for side, paths in sides.items()}
    section = yaml.safe_load((folder / "params.yaml").read_text())["candidates"][CANDIDATE]
    params = {f"candidates.{CANDIDATE}": section}
    stage |= {"cmd": f"python -m pipelines.train {CANDIDATE}", "params": {"params.yaml": params}}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {f"train@{CANDIDATE}": stage}}))


@pytest.mark.proof
def test_a_real_training_ends_well_without_its_server_and_the_verb_publish_completes_its_run(
    server: Server, client: MlflowClient, trained: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    wait_for_epochs(client, 4, tmp_path)
    server.kill()
    (tmp_path / "go").touch()
    assert trained.wait(WITHIN_S) == 0
    rows = list(csv.DictReader((tmp_path / "reports" / TASK / CANDIDATE / "curves.csv").read_text().splitlines()))
    assert len(rows) == 8 and epochs_there(client) == [0, 1, 2, 3]
    (before,) = runs(client)
    assert before.info.status == "RUNNING"
    write_lock(tmp_path)
    server.start()
    for added in ("metric points", "added nothing, it is complete"):
        words = [sys.executable, "-m", "convoy", "publish"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said = next(line for line in done.stdout.splitlines() if f"run {CANDIDATE}: added" in line)
        print(said.strip())
        assert added in said
    (run,) = runs(client)
    assert run.info.run_id == before.info.run_id and run.info.status == "FINISHED"
    for curve, expected in curves_of(rows).items():
        history = client.get_metric_history(run.info.run_id, curve)
        assert [(each.step, each.timestamp - run.info.start_time, each.value) for each in history] == expected
