"""A training that is followed: one run from its first epoch on, the same one after a kill, each point once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_store import open_empty_store

from convoy.core.process import process_tags
from convoy.tracking import live_runs, mlflow_runs
from convoy.tracking.run_content import RunContent, curves_of, texts

pytestmark = pytest.mark.mlflow
PARAMS = {"learning": {"epochs": 3, "rate": 0.1}, "network": {"channels": [8, 8]}}
ROWS = [
    {"epoch": n, "train_loss": 1 / (n + 1), "validation_accuracy": 0.1 * n, "elapsed_s": 1.37 * n} for n in range(4)
]
START_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_empty_store()


def start(rows: list[dict[str, float]] | None = None, pid: int | None = None) -> dict[str, Any]:
    about = {
        "task": "fashion",
        "candidate": "fashion-cnn",
        "network": "cnn",
        "fingerprint": "f" * 64,
        "started_ms": START_MS,
    }
    return {"event": "start", **about, "pid": pid or os.getpid(), "params": PARAMS, "rows": rows or []}


def epochs(first: int, last: int) -> list[dict[str, Any]]:
    return [{"event": "epoch", "row": row} for row in ROWS[first:last]]


def end(status: str, reason: str = "") -> dict[str, Any]:
    return {"event": "end", "status": status, "reason": reason}


def follow(*events: dict[str, Any]) -> None:
    live_runs.follow([json.dumps(event) + "\n" for event in events])


def the_run(client: MlflowClient) -> Run:
    (run,) = client.search_runs([mlflow_runs.experiment_of(client, "fashion")])
    return run


def points(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, int, float]]]:
    """As in a RunContent: (epoch, ms since start, value)."""
    return {
        name: [
            (point.step, point.timestamp - run.info.start_time, point.value)
            for point in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }


def published(rows: list[dict[str, float]]) -> RunContent:
    """What publish would bring of the same training; its start is known only to a second there."""
    params = {"architecture": "cnn", **texts(PARAMS)}
    return RunContent("fashion-cnn", "f" * 64, START_MS + 700, START_MS + 9_000, params, curves=curves_of(rows))


def test_a_followed_run_is_what_publish_would_have_made(client: MlflowClient) -> None:
    follow(start(), *epochs(0, 4), end("FINISHED"))
    run = the_run(client)
    assert (run.info.status, run.info.run_name, run.info.start_time) == ("FINISHED", "fashion-cnn", START_MS)
    assert run.data.params == {"architecture": "cnn", **texts(PARAMS)}
    assert points(client, run) == curves_of(ROWS)
    experiment = mlflow_runs.experiment_of(client, "fashion")
    _, added = mlflow_runs.complete_run(client, experiment, published(ROWS))
    assert not added["run"] + added["params"] + added["metric points"]
    assert points(client, the_run(client)) == curves_of(ROWS)


def test_a_training_that_dies_is_killed_and_the_next_goes_on_with_its_run(client: MlflowClient) -> None:
    follow(start(), *epochs(0, 3))
    killed = the_run(client)
    assert killed.info.status == "KILLED" and "without a word" in killed.data.tags[mlflow_runs.END_REASON]
    again = {**ROWS[2], "elapsed_s": 99.0}  # told, but killed before its checkpoint: trained once more, to the same
    follow(start(ROWS[:2]), {"event": "epoch", "row": again}, *epochs(3, 4), end("FINISHED"))
    run = the_run(client)
    assert run.info.run_id == killed.info.run_id and run.info.status == "FINISHED"
    assert mlflow_runs.END_REASON not in run.data.tags
    assert points(client, run) == curves_of(ROWS)


def test_a_training_that_fails_says_why(client: MlflowClient) -> None:
    follow(start(), *epochs(0, 1), end("FAILED", "the loss is nan at step 7"))
    assert the_run(client).info.status == "FAILED"
    assert the_run(client).data.tags[mlflow_runs.END_REASON] == "the loss is nan at step 7"


def test_publish_finishes_what_was_not_told(client: MlflowClient) -> None:
    follow(start(), *epochs(0, 2), end("KILLED", "SIGTERM"))
    mlflow_runs.complete_run(client, mlflow_runs.experiment_of(client, "fashion"), published(ROWS))
    run = the_run(client)
    assert run.info.status == "FINISHED" and mlflow_runs.END_REASON not in run.data.tags
    assert points(client, run) == curves_of(ROWS)


def test_a_half_line_and_an_absent_start_are_no_matter(client: MlflowClient) -> None:
    live_runs.follow([])
    live_runs.follow([json.dumps(start()) + "\n", json.dumps(epochs(0, 1)[0])[:20]])
    assert the_run(client).info.status == "KILLED"


def test_while_mlflow_fails_all_is_kept_and_then_brought_once(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    working, calls = mlflow_runs.add_values, iter(range(100))

    def failing(*arguments: Any) -> None:
        working(*arguments)  # the server has done it, and the answer is lost
        if next(calls) < 2:
            raise ConnectionError("no answer")

    monkeypatch.setattr(mlflow_runs, "add_values", failing)
    monkeypatch.setattr(live_runs, "RETRY_S", 0.01)
    follow(start(), *epochs(0, 4), end("FINISHED"))
    assert "no answer" in capsys.readouterr().out
    assert the_run(client).info.status == "FINISHED" and points(client, the_run(client)) == curves_of(ROWS)


def test_a_run_that_a_slow_server_made_twice_is_one_after_publish(client: MlflowClient) -> None:
    follow(start(), *epochs(0, 2))
    experiment = mlflow_runs.experiment_of(client, "fashion")
    mlflow_runs.make_run(client, experiment, published(ROWS))
    run, added = mlflow_runs.complete_run(client, experiment, published(ROWS))
    assert the_run(client).info.run_id == run.info.run_id and not added["run"]
    assert points(client, the_run(client)) == curves_of(ROWS)
    late = mlflow_runs.make_run(client, experiment, published(ROWS))  # even after that, the finished one stays
    assert mlflow_runs.complete_run(client, experiment, published(ROWS))[0].info.run_id == run.info.run_id
    assert client.get_run(late.info.run_id).info.lifecycle_stage == "deleted"


@pytest.fixture
def another() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that lives until the test ends it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def running_run(client: MlflowClient, pid: int, **tags: str) -> str:
    experiment = mlflow_runs.experiment_of(client, "fashion")
    content = RunContent("fashion-cnn", str(pid), START_MS, START_MS)
    changed = {f"convoy.{name}": value for name, value in tags.items()}
    return str(mlflow_runs.make_run(client, experiment, content, {**process_tags(pid), **changed}).info.run_id)


def test_a_run_whose_process_is_dead_is_closed_and_all_others_are_left(
    client: MlflowClient, another: "subprocess.Popen[bytes]"
) -> None:
    assert live_runs.close_orphaned_runs(client) == []
    dies = running_run(client, another.pid)
    lives = running_run(client, os.getpid())
    elsewhere = running_run(client, another.pid, host="another.example.org")
    number_used_again = running_run(client, os.getpid(), process_started=str(psutil.Process().create_time() - 3600))
    assert live_runs.close_orphaned_runs(client) == ["fashion-cnn"]
    another.kill()
    another.wait()
    assert live_runs.close_orphaned_runs(client) == ["fashion-cnn"] and live_runs.close_orphaned_runs(client) == []
    killed = {
        run_id
        for run_id in (dies, number_used_again, lives, elsewhere)
        if client.get_run(run_id).info.status == "KILLED"
    }
    assert killed == {dies, number_used_again}
    assert str(another.pid) in client.get_run(dies).data.tags[mlflow_runs.END_REASON]


def test_the_next_training_closes_what_another_left(client: MlflowClient, another: "subprocess.Popen[bytes]") -> None:
    left = running_run(client, another.pid)
    another.kill()
    another.wait()
    follow(start(), end("FINISHED"))
    assert client.get_run(left).info.status == "KILLED"


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_process_that_was_dead_when_its_run_was_made_is_dead(client: MlflowClient) -> None:
    running_run(client, dead_pid())
    assert live_runs.close_orphaned_runs(client) == ["fashion-cnn"]


KILLED_IN_PUBLISH = """
import os
from mlflow_store import settings
from convoy.tracking import mlflow_runs
from test_live import ROWS, published
mlflow_runs._add_tags = lambda *_: os._exit(9)
client = mlflow_runs.open_store()
mlflow_runs.complete_run(client, mlflow_runs.experiment_of(client, "fashion"), published(ROWS))
"""


def killed_in_publish() -> None:
    path = os.pathsep.join(map(str, (Path(__file__).parent, *sys.path)))
    assert (
        subprocess.run([sys.executable, "-c", KILLED_IN_PUBLISH], env={**os.environ, "PYTHONPATH": path}).returncode
        == 9
    )


def test_a_run_that_a_killed_publish_was_making_is_closed_and_completed_by_the_next(client: MlflowClient) -> None:
    killed_in_publish()
    assert the_run(client).info.status == "RUNNING" and live_runs.close_orphaned_runs(client) == ["fashion-cnn"]
    assert mlflow_runs.END_REASON in the_run(client).data.tags
    killed_in_publish()
    assert the_run(client).info.status == "KILLED"
    mlflow_runs.complete_run(client, mlflow_runs.experiment_of(client, "fashion"), published(ROWS))
    run = the_run(client)
    assert run.info.status == "FINISHED" and mlflow_runs.END_REASON not in run.data.tags
    assert points(client, run) == curves_of(ROWS)


def test_a_running_run_that_publish_completes_is_of_that_publish(
    client: MlflowClient, another: "subprocess.Popen[bytes]"
) -> None:
    content = published(ROWS)
    mlflow_runs.make_run(client, mlflow_runs.experiment_of(client, "fashion"), content, process_tags(another.pid))
    killed_in_publish()
    assert another.poll() is None and live_runs.close_orphaned_runs(client) == ["fashion-cnn"]
