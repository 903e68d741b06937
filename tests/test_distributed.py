"""Two processes that share each batch train what one would, and only the first of them speaks and writes."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_training
import torch
from mlflow_store import open_empty_store
from pytorch_lightning.utilities import rank_zero_only

from convoy.core.params import ParamsInvalid
from convoy.lineage import workspace
from convoy.tracking import mlflow_runs
from convoy.training.callbacks import Curves, FollowerUpdates
from convoy.training.checkpoints import training_folder
from convoy.training.trainer import Share

pytestmark = [pytest.mark.torch, pytest.mark.mlflow]

# Each process would draw its own.
NO_CHANCE = {"dropout": 0.0, "pairs": {"places": 97, "min_count": 1, "dropout": 0.0}}
CODE = os.pathsep.join([workspace.environment(Path())["PYTHONPATH"], str(Path(__file__).parent)])


def run(folder: Path, devices: int, **more: str) -> tuple[list[dict[str, float]], str]:
    """Curves and all that was said, of three steps per epoch."""
    changes = {
        "trainer": {"devices": devices, "strategy": "ddp" if devices > 1 else "auto"},
        "batches": {"size": 100},
        "network": NO_CHANCE,
    }
    tiny_training.lay(folder, "text", "lstm", changes, epochs=2, learning_rate=0.003)
    environment = workspace.environment(folder) | {"PYTHONPATH": CODE, "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", "followed_training", "notes-lstm"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with (folder / "reports/notes/notes-lstm/curves.csv").open() as stream:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
    return rows, done.stdout + done.stderr


@pytest.mark.process
def test_two_processes_have_the_losses_of_one_at_the_same_batch_size_and_are_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = run(tmp_path / "one", 1, CONVOY_FOLLOW="0")
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "two")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("CONVOY_FOLLOW", raising=False)
    client = open_empty_store()
    together, said = run(tmp_path / "two", 2)
    assert len(alone) == len(together) == 2
    for one, two in zip(alone, together, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5)
        assert two["validation_log_loss"] == pytest.approx(one["validation_log_loss"], abs=1e-4)
    assert said.count("parameters, validation") == 1
    assert not [path for path in (tmp_path / "two" / ".run" / "training").iterdir() if path.is_dir()]
    (followed,) = client.search_runs([mlflow_runs.experiment_of(client, "notes")])
    assert followed.info.status == "FINISHED"
    for curve in ("train_loss", "validation_log_loss"):
        points = client.get_metric_history(followed.info.run_id, f"curves/{curve}")
        assert [(point.step, point.value) for point in points] == [(row["epoch"], row[curve]) for row in together]


def batches(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.arange(size * 3).reshape(size, 3), torch.arange(size)) for _ in range(2)]


def test_the_shares_of_all_processes_are_the_batch() -> None:
    shares = [list(Share(batches(8), rank, 2)) for rank in range(2)]
    assert all(len(share) == 2 for share in shares)
    for first, second, (inputs, labels) in zip(*shares, batches(8), strict=True):
        order = torch.cat([first[1], second[1]])
        assert len(first[1]) == len(second[1]) == 4
        assert torch.equal(order.sort().values, labels)
        assert torch.equal(torch.cat([first[0], second[0]]), inputs[order])


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(ParamsInvalid, match=r"batches.size is 9, which 2 processes .* choose a multiple"):
        next(iter(Share(batches(9), 0, 2)))


def test_only_the_first_process_is_followed() -> None:
    started: list[Any] = []
    follower: Any = SimpleNamespace(start=lambda **about: started.append(about))
    for rank in range(2):
        trainer: Any = SimpleNamespace(is_global_zero=rank == 0, callbacks=[Curves()])
        FollowerUpdates(follower, task="notes").on_fit_start(trainer, None)  # type: ignore[arg-type]
    assert started == [{"task": "notes", "rows": []}]


def test_only_the_first_process_locks_and_clears_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with training_folder("notes-lstm", "f" * 64) as folder:
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with training_folder("notes-lstm", "f" * 64) as same:
            assert same == folder
        monkeypatch.setattr(rank_zero_only, "rank", 0)
        assert folder.is_dir()
