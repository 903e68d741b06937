"""A training that is killed goes on from its last whole checkpoint and gives what an unbroken one gives, bitwise."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_training
from mlflow.entities import Run
from mlflow_store import open_empty_store

from convoy.lineage import workspace

pytestmark = [pytest.mark.mlflow, pytest.mark.torch]
WITHIN_S = 120  # for what takes a few seconds on a machine that is not busy


def environment() -> dict[str, str]:
    return workspace.environment(Path()) | {"CONVOY_FOLLOW": "0", "OMP_NUM_THREADS": "1"}


@pytest.mark.process
@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.proof)])  # 4: each way to be killed, once
@pytest.mark.parametrize(("kind", "network"), [("image", "cnn"), ("text", "lstm")])
def test_a_training_killed_many_times_gives_the_same_weights(
    kind: str, network: str, kills: int, tmp_path: Path
) -> None:
    muon = 0.02 if kind == "image" else None  # as in params.yaml: each optimizer's state must come back
    # An adversary remembers the step before, of the same batch: it must have nothing to remember between epochs.
    changes = {"network": {"adversarial": 0.1}} if kind == "text" else {}
    tiny_training.lay(tmp_path, kind, network, changes, muon_learning_rate=muon)
    script = Path(__file__).with_name("killed_training.py").absolute()
    done = subprocess.run(
        [sys.executable, script, tiny_training.named(kind, network), str(kills), "0"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(*(line for line in done.stdout.splitlines() if not line.startswith("Seed")), sep="\n")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{kills} kills" in done.stdout
    for way in ("SIGKILL after", "SIGTERM after", "SIGKILL while writing", "SIGINT after"):
        assert way in done.stdout
    assert "goes on after epoch" in done.stdout, "each attempt has begun anew: nothing is shown about checkpoints"


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_stage_at_once_and_it_writes_nothing(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    tiny_training.lay(tmp_path, "text", "lstm", epochs=1000)
    command = [sys.executable, "-m", "pipelines.train", "notes-lstm"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as training:
        while training.poll() is None and not list(tmp_path.glob(".run/training/*/epoch=*.ckpt")):
            time.sleep(0.05)
        began = time.monotonic()
        os.kill(training.pid, number)
        said = training.communicate(timeout=60)[1]
    assert training.returncode == code
    assert time.monotonic() - began < 15  # mostly Python's own end
    assert f"notes-lstm: stopped by {number.name}" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("candidates/*")) + list(tmp_path.glob("reports/*"))
    assert len(list(tmp_path.glob(".run/training/*/epoch=*.ckpt"))) >= 1


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert process.poll() is None, "the training ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.proof
def test_a_training_killed_half_way_is_one_run_in_mlflow_with_each_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = {name: value for name, value in environment().items() if name != "CONVOY_FOLLOW"}
    monkeypatch.chdir(tmp_path)
    store = open_empty_store()
    epochs = 60
    tiny_training.lay(tmp_path, "image", "cnn", epochs=epochs, patience=epochs)
    words = [sys.executable, "-m", "pipelines.train", "bars-cnn"]

    def runs() -> list[Run]:
        experiment = store.get_experiment_by_name("convoy-bars")
        return store.search_runs([experiment.experiment_id]) if experiment else []

    def steps() -> list[int]:
        found = [store.get_metric_history(run.info.run_id, "curves/validation_log_loss") for run in runs()]
        return [point.step for history in found for point in history]

    def reached() -> int:
        return max((int(path.stem.removeprefix("epoch=")) for path in Path(".run").rglob("epoch=*.ckpt")), default=0)

    def hold_after(epoch: int, true: Callable[[], bool], training: "subprocess.Popen[str]") -> None:
        """Stop the training, since on a busy machine MLflow takes as long to load as all of it, until this is true."""
        wait_until(lambda: reached() >= epoch, training)
        training.send_signal(signal.SIGSTOP)
        try:
            wait_until(true, training)
        except BaseException:
            training.kill()  # Popen would wait for what is stopped for ever
            raise

    with subprocess.Popen(words, cwd=tmp_path, env=followed, stderr=subprocess.DEVNULL, text=True) as training:
        hold_after(10, lambda: len(steps()) >= 5, training)
        training.kill()
    (killed,) = runs()
    later = reached() + 10  # all that the killed one has told, or its follower still tells, is before it
    with subprocess.Popen(words, cwd=tmp_path, env=followed, stdout=subprocess.PIPE, text=True) as training:
        hold_after(later, lambda: max(steps()) >= later - 1, training)
        training.send_signal(signal.SIGCONT)
        said, _ = training.communicate(timeout=WITHIN_S)
    assert training.returncode == 0 and "goes on after epoch" in said
    (run,) = runs()
    assert run.info.run_id == killed.info.run_id
    fingerprint = json.loads(Path("reports/bars/bars-cnn/metrics.json").read_text())["training"]["fingerprint"]
    assert run.data.tags["convoy.run_key"] == fingerprint
    found = steps()
    print(f"\nkilled and resumed: {len(found)} of {epochs} points in MLflow live, none twice: {run.info.status}")
    assert len(found) == len(set(found)) > 5
