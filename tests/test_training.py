"""Training learns, keeps its best weights, stops early, and does the same again with the same seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from prepared_splits import write_split

from convoy import candidates
from convoy.classifier import LearningParams
from convoy.metrics import classification_metrics
from convoy.training import MONITOR, Splits, Trained, TrainerParams, curves_csv, resolve_precision, train

NETWORKS = {
    ("image", "cnn"): {"channels": [8, 8, 8], "dropout": 0.1},
    ("image", "lstm"): {"units": 16, "dropout": 0.1},
    ("text", "cnn"): {"embedding": 16, "filters": 16, "widths": [1, 2], "dropout": 0.1, "word_dropout": 0.0},
    ("text", "lstm"): {"embedding": 16, "units": 16, "dropout": 0.1, "word_dropout": 0.0},
}
BATCHES = {"image": {"size": 10, "flip": True, "shift_px": 1}, "text": {"size": 10, "bucket": 4}}
TRAINER = TrainerParams(seed=7, accelerator="cpu", devices=1, precision="auto")


def fit(task: Any, architecture: Any, folder: Path, epochs: int, **learning: Any) -> tuple[Trained, candidates.Dataset]:
    params = {"learning_rate": 0.02, "weight_decay": 0.0, "label_smoothing": 0.0, "patience": 50} | learning
    pl.seed_everything(TRAINER.seed)
    training = candidates.open_dataset(task, write_split(task, folder / "train.arrow", 180))
    validation = candidates.open_dataset(task, write_split(task, folder / "validation.arrow", 60))
    description = candidates.Description(
        task=task,
        architecture=architecture,
        network=NETWORKS[task, architecture],
        dimensions=training.dimensions,
        labels=training.names,
        training={},
    )
    splits = Splits(training, validation, candidates.batch_params(task, BATCHES[task]), TRAINER.seed)
    trained = train(candidates.build(description), splits, TRAINER, LearningParams(epochs=epochs, **params))
    candidates.save(folder / "candidate", description, trained.network)
    return trained, validation


@pytest.mark.parametrize(("task", "architecture"), NETWORKS)
def test_every_candidate_learns_what_is_there_to_learn(task: Any, architecture: Any, tmp_path: Path) -> None:
    trained, validation = fit(task, architecture, tmp_path, epochs=12)
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert metrics["accuracy"] >= 0.9
    assert trained.curves[-1]["train_loss"] < 0.5 * trained.curves[0]["train_loss"]


@pytest.mark.parametrize(("task", "architecture"), [("image", "cnn"), ("text", "lstm")])
def test_two_runs_with_one_seed_give_equal_weights(task: Any, architecture: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        fit(task, architecture, tmp_path / name, epochs=2)
    one, two = (tmp_path / name / "candidate" / "weights.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_weights_kept_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    trained, validation = fit("image", "cnn", tmp_path, epochs=4, learning_rate=0.3)
    best = min(row[MONITOR] for row in trained.curves)
    found = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert found["log_loss"] == pytest.approx(best, rel=1e-3)


def test_training_stops_when_validation_no_longer_improves(tmp_path: Path) -> None:
    trained, _ = fit("image", "cnn", tmp_path, epochs=40, learning_rate=2.0, patience=1)
    assert len(trained.curves) < 40


def test_a_candidate_comes_back_from_its_files(tmp_path: Path) -> None:
    trained, validation = fit("text", "cnn", tmp_path, epochs=1)
    description, network = candidates.load(tmp_path / "candidate")
    assert description.labels == ("negative", "positive")
    assert not network.training
    expected = candidates.probabilities(trained.network, validation)
    assert np.array_equal(candidates.probabilities(network, validation), expected)


def test_the_curves_have_a_line_per_epoch(tmp_path: Path) -> None:
    trained, _ = fit("text", "cnn", tmp_path, epochs=3)
    lines = curves_csv(trained.curves).decode().splitlines()
    assert lines[0] == "epoch,train_loss,validation_log_loss,validation_accuracy,learning_rate,elapsed_s"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2"]


def test_automatic_precision_is_32_bits_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert resolve_precision(TRAINER.model_copy(update={"accelerator": "auto"})) == "32-true"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_automatic_precision_is_bf16_on_a_gpu_that_has_it() -> None:
    found = resolve_precision(TRAINER.model_copy(update={"accelerator": "auto"}))
    assert found == ("bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true")
