"""A training that is killed goes on from its last whole checkpoint and gives what an unbroken one gives, bitwise."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_training

from convoy.running import workspace

KILLS = 10


def environment() -> dict[str, str]:
    return workspace.environment(Path()) | {"CONVOY_FOLLOW": "0", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "architecture"), [("image", "cnn"), ("text", "lstm")])
def test_a_training_killed_ten_times_gives_the_same_weights(task: str, architecture: str, tmp_path: Path) -> None:
    muon = 0.02 if task == "image" else None  # as in params.yaml: each optimizer's state must come back
    tiny_training.lay(tmp_path, task, architecture, muon_learning_rate=muon)
    script = Path(__file__).with_name("killed_training.py").absolute()
    done = subprocess.run(
        [sys.executable, script, task, architecture, str(KILLS), "0"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(*(line for line in done.stdout.splitlines() if not line.startswith("Seed")), sep="\n")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{KILLS} kills" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_stage_at_once_and_it_writes_nothing(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    tiny_training.lay(tmp_path, "text", "lstm", epochs=1000)
    command = [sys.executable, "-m", "pipelines.train", "text", "lstm"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as training:
        while training.poll() is None and not list(tmp_path.glob(".run/training/*/epoch=*.ckpt")):
            time.sleep(0.05)
        began = time.monotonic()
        os.kill(training.pid, number)
        said = training.communicate(timeout=60)[1]
    assert training.returncode == code
    assert time.monotonic() - began < 15  # mostly Python's own end
    assert f"text-lstm: stopped by {number.name}" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("candidates/*")) + list(tmp_path.glob("reports/*"))
    assert len(list(tmp_path.glob(".run/training/*/epoch=*.ckpt"))) >= 1
