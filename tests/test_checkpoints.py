"""Of an unfinished training only whole checkpoints count, and only for the same params, data and code."""

import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import tiny_training
import torch
import yaml

from convoy.training.callbacks import Curves
from convoy.training.checkpoints import KEPT, AtomicCheckpointIO, TrainingRunning, newest_readable, training_folder
from pipelines import train

pytestmark = pytest.mark.torch
NAME, REPORTS = "notes-lstm", Path("reports/notes/notes-lstm")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny_training.lay(tmp_path, "text", "lstm"))
    monkeypatch.setenv("CONVOY_FOLLOW", "0")
    return tmp_path


class PowerCut(Exception):
    """Stands in for a kill: nothing in the pipeline knows it."""


@pytest.fixture
def cut_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Train until so many epochs are done, then stop as if killed."""

    def run(epochs: int) -> None:
        def cut(self: Curves, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if len(self.rows) == epochs:
                raise PowerCut

        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            patch.setattr(Curves, "on_train_epoch_start", cut)
            patch.setattr(Curves, "on_train_end", cut)
            train.main(NAME)

    yield run


def weights() -> bytes:
    return Path("candidates/notes", NAME, "weights.safetensors").read_bytes()


def checkpoints() -> list[Path]:
    return sorted(Path(".run/training").glob(f"{NAME}-*/epoch=*.ckpt"))


def unbroken() -> bytes:
    train.main(NAME)
    return weights()


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "flipped":
        content[content.index(b"data/0") + 2000] ^= 1
    else:
        content = bytearray()
    path.write_bytes(content)


def test_two_checkpoints_are_kept_and_both_go_when_the_stage_is_done(cut_after: Any) -> None:
    cut_after(4)
    assert [path.name for path in checkpoints()] == ["epoch=0002.ckpt", "epoch=0003.ckpt"]
    assert len(checkpoints()) == KEPT
    train.main(NAME)
    assert not list(Path(".run/training").iterdir())


@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(how: str, cut_after: Any) -> None:
    expected = unbroken()
    cut_after(4)
    damage(checkpoints()[-1], how)
    with pytest.warns(UserWarning, match=r"epoch=0003.ckpt is damaged"):
        train.main(NAME)
    assert weights() == expected


def test_whatever_byte_is_flipped_a_checkpoint_is_refused_or_reads_the_same(tmp_path: Path) -> None:
    written = {"weights": torch.arange(50.0), "epoch": 3}
    path = tmp_path / "epoch=0003.ckpt"
    AtomicCheckpointIO().save_checkpoint(written, path)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for place in rng.sample(range(len(whole)), 300):
        broken = bytearray(whole)
        broken[place] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        with warnings.catch_warnings(action="ignore"):
            found = newest_readable(tmp_path)
        if found is None:
            refused += 1
        else:
            read = torch.load(found, weights_only=True)
            assert torch.equal(read["weights"], written["weights"]) and read["epoch"] == 3
    assert refused > 100


def test_a_training_that_had_stopped_early_stops_again(cut_after: Any) -> None:
    tiny_training.lay(Path(), "text", "lstm", epochs=40, learning_rate=0.5, patience=1)
    train.main(NAME)
    expected, curves = weights(), REPORTS / "curves.csv"
    epochs = len(curves.read_text().splitlines()) - 1
    assert epochs < 40
    cut_after(epochs)
    train.main(NAME)
    assert weights() == expected
    assert len(curves.read_text().splitlines()) - 1 == epochs


@pytest.mark.parametrize("changed", ["params", "data"])
def test_other_params_or_data_start_anew(changed: str, cut_after: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cut_after(3)
    if changed == "params":
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["candidates"][NAME]["learning"]["weight_decay"] = 0.02
        Path("params.yaml").write_text(yaml.safe_dump(params))
    else:
        data = Path("data/prepared/notes")
        (data / "validation.arrow").write_bytes((data / "train.arrow").read_bytes())
    train.main(NAME)
    said = capsys.readouterr().out
    assert "notes-lstm: starts anew: params, data or code have changed since .run/training/notes-lstm-" in said
    assert "goes on" not in said
    assert not list(Path(".run/training").iterdir())


def test_a_resumed_training_says_so_and_its_clock_goes_on(cut_after: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cut_after(3)
    train.main(NAME)
    assert "notes-lstm: goes on after epoch 3 of 6 (.run/training/notes-lstm-" in capsys.readouterr().out
    rows = [line.split(",") for line in (REPORTS / "curves.csv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [0, 1, 2, 3, 4, 5]
    elapsed = [float(row[-1]) for row in rows]
    assert elapsed == sorted(elapsed)


def test_two_trainings_of_the_same_are_refused() -> None:
    with (
        training_folder(NAME, "f" * 64),
        pytest.raises(TrainingRunning, match="is being trained by another process"),
        training_folder(NAME, "f" * 64),
    ):
        pass


def test_another_training_that_still_runs_keeps_its_folder() -> None:
    with training_folder(NAME, "a" * 64) as running:
        with training_folder(NAME, "b" * 64):
            pass
        assert running.is_dir()


def test_a_job_that_slurm_queues_again_leaves_no_file_that_other_trainings_begin_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"NTASKS": "1", "JOB_NAME": "training", "JOB_ID": "1", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    listening: list[Any] = []
    monkeypatch.setattr(Curves, "on_train_start", lambda *_: listening.append(signal.getsignal(signal.SIGUSR1)))
    before = signal.getsignal(signal.SIGUSR1)
    train.main(NAME)
    assert listening == [before], "Lightning would write its own file as the job ends"
