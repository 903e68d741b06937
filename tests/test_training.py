"""Training learns, keeps its best weights, stops early, and does the same again with the same seed."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import tiny_training
import torch
from prepared_splits import CONTRACTS, text_split, write_split
from pytorch_lightning.plugins import MixedPrecision
from safetensors.numpy import load_file
from tiny_training import BATCHES, DATA, NETWORKS

from convoy.core.tasks import Candidate
from convoy.evaluation.metrics import classification_metrics
from convoy.kinds.learning import candidates
from convoy.kinds.text.items.prepared import write as write_texts
from convoy.training import trainer
from convoy.training.callbacks import BestWeights, Diverged
from convoy.training.classifier import LearningParams
from convoy.training.follower import Follower
from convoy.training.trainer import Splits, Trained, TrainerParams, curves_csv, resolve_precision, train
from pipelines import train as train_stage

pytestmark = pytest.mark.torch
TRAINER = TrainerParams(**tiny_training.TRAINER)


def fit(
    kind: str,
    architecture: str,
    folder: Path,
    epochs: int,
    callbacks: Sequence[pl.Callback] = (),
    trainer: TrainerParams = TRAINER,
    write: Callable[[str, Path, int], Path] = write_split,
    **learning: Any,
) -> tuple[Trained, candidates.Dataset]:
    params = {
        "learning_rate": 0.02,
        "muon_learning_rate": None,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "class_weights": "none",
        "patience": 50,
    } | learning
    pl.seed_everything(TRAINER.seed)
    contract = CONTRACTS[kind]
    train_split = candidates.open_dataset(kind, write(kind, folder / "train.arrow", 180), contract)
    validation = candidates.open_dataset(kind, write(kind, folder / "validation.arrow", 60), contract)
    candidate = Candidate(tiny_training.named(kind, architecture), DATA[kind], DATA[kind], kind, architecture)
    network = {"name": architecture, **NETWORKS[kind, architecture]}
    description = candidates.describe(candidate, network, contract, train_split, {})
    batches = candidates.batch_model(kind).model_validate(BATCHES[kind])
    splits = Splits(train_split, validation, batches, TRAINER.seed)
    trained = train(
        candidates.build(description),
        splits,
        trainer,
        LearningParams(epochs=epochs, **params),
        callbacks=callbacks,
    )
    candidates.save(folder / "candidate", description, trained.network, contract.files)
    return trained, validation


# Nothing protects the state of an Elman network over 28 rows: it needs smaller steps, and more of them.
SLOW = {("image", "rnn"): {"epochs": 20, "learning_rate": 0.01}}


@pytest.mark.parametrize(("kind", "architecture"), NETWORKS)
def test_every_candidate_learns_what_is_there_to_learn(kind: str, architecture: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"epochs": 12} | SLOW.get((kind, architecture), {})
    trained, validation = fit(kind, architecture, tmp_path, **how)
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert metrics["accuracy"] >= 0.9
    assert trained.curves[-1]["train_loss"] < 0.5 * trained.curves[0]["train_loss"]


@pytest.mark.parametrize(("kind", "architecture"), [("image", "cnn"), ("text", "lstm")])
def test_two_runs_with_one_seed_give_equal_weights(kind: str, architecture: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        fit(kind, architecture, tmp_path / name, epochs=2)
    one, two = (tmp_path / name / "candidate" / "weights.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_an_adversarial_training_takes_two_steps_a_batch_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, ("text", "lstm"), NETWORKS["text", "lstm"] | {"adversarial": 0.1})
    steps = Steps()
    trained, validation = fit("text", "lstm", tmp_path, epochs=8, callbacks=[steps])
    assert steps.taken == 8 * 2 * (180 // 10)
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert metrics["accuracy"] >= 0.9


def test_an_overflow_is_skipped_with_the_adversary_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that is too high, as a GradScaler reaches it every 2,000 steps, is lowered; training goes on."""
    monkeypatch.setitem(NETWORKS, ("text", "lstm"), NETWORKS["text", "lstm"] | {"adversarial": 0.1})
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    # Lightning gives CPUs no 16-mixed by its name; this is what it is on a GPU.
    monkeypatch.setattr(trainer, "resolve_precision", lambda _: None)
    monkeypatch.setattr(trainer, "_cluster_environments", lambda: [MixedPrecision("16-mixed", "cpu", scaler)])
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # it has no LSTM of 16 bits on most CPUs
    trained, validation = fit("text", "lstm", tmp_path, epochs=4)
    assert scaler.get_scale() < 2.0**24, "nothing overflowed: this shows nothing"
    assert all(math.isfinite(row["train_loss"]) for row in trained.curves)
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert metrics["accuracy"] >= 0.9


class Steps(pl.Callback):
    taken = 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.taken = trainer.global_step


def test_the_weights_kept_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    trained, validation = fit("image", "cnn", tmp_path, epochs=4, learning_rate=0.3)
    best = min(row["validation_log_loss"] for row in trained.curves)
    found = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert found["log_loss"] == pytest.approx(best, rel=1e-3)


def write_uneven(_: str, path: Path, count: int, negatives: int = 100) -> Path:
    """Texts with so many negative ones for each positive; three positive ones of each 180."""
    split = text_split(2 * (negatives + 1) * count // 60)
    kept = [row for row, label in enumerate(split.labels) if label == 0 or row % (2 * negatives) == 1]
    texts, tokens = ([items[row] for row in kept] for items in (split.contents, split.tokens))
    write_texts(path, [dataclasses.replace(split, contents=texts, tokens=tokens, labels=split.labels[kept])])
    return path


def test_a_rare_label_is_learnt_with_weights_and_smoothing(tmp_path: Path) -> None:
    """As `init` proposes for uneven texts; three texts of 303 are positive."""
    uneven = {"class_weights": "balanced", "label_smoothing": 0.05}
    trained, validation = fit("text", "cnn", tmp_path, epochs=4, write=write_uneven, **uneven)
    said = candidates.probabilities(trained.network, validation).argmax(axis=1)
    assert np.mean(said == validation.labels) > 0.95


class Figures(pl.Callback):
    """Keeps what validation said after each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def best(self, name: str) -> int:
        return min(range(len(self.rows)), key=lambda epoch: self.rows[epoch][name])


@pytest.mark.parametrize(("weights", "monitor"), [("balanced", "validation_loss"), ("none", "validation_log_loss")])
def test_epochs_are_chosen_by_the_trained_loss(weights: str, monitor: str, tmp_path: Path) -> None:
    figures, write = Figures(), functools.partial(write_uneven, negatives=9)
    how = {"class_weights": weights, "label_smoothing": 0.05, "learning_rate": 0.1}
    trained, validation = fit("text", "cnn", tmp_path, 8, [figures], write=write, patience=1, **how)
    best = figures.best(monitor)
    assert trained.best_epoch == best and ("validation_loss" in figures.rows[0]) == (weights == "balanced")
    assert len(trained.curves) == min(8, best + 2)  # patience ended it
    if weights == "balanced":
        assert figures.best("validation_log_loss") != best, "both losses choose the same epoch: this shows nothing"
    found = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert found["log_loss"] == pytest.approx(figures.rows[best]["validation_log_loss"], rel=1e-3)


def test_a_resumed_training_keeps_its_best_epoch() -> None:
    one, two = BestWeights(torch.nn.Linear(1, 1), "x"), BestWeights(torch.nn.Linear(1, 1), "x")
    one.score, one.epoch = 0.5, 3
    two.load_state_dict(one.state_dict())
    assert (two.score, two.epoch) == (0.5, 3)


class Poison(pl.Callback):
    """Makes a weight not finite after so many steps."""

    def __init__(self, steps: int, value: float) -> None:
        self.steps, self.value = steps, value

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.steps:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(self.value)


@pytest.mark.parametrize(
    ("steps", "value", "place"),
    [
        (25, math.nan, "the loss is nan in epoch 2 of 4, batch 8 of 18 (step 25)"),
        (3, math.inf, "the loss is nan in epoch 1 of 4, batch 4 of 18 (step 3)"),
        (36, math.nan, "is no longer finite in epoch 2 of 4, batch 18 of 18 (step 36)"),
    ],
)
def test_a_loss_that_is_not_finite_stops_training_before_the_next_step(
    steps: int, value: float, place: str, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=re.escape(place)):
        fit("image", "cnn", tmp_path, epochs=4, callbacks=[Poison(steps, value)])


def test_the_stage_says_how_to_mend_a_training_that_diverged_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_training.lay(tmp_path, "image", "cnn", learning_rate=1e30))
    ends: list[tuple[str, str]] = []
    monkeypatch.setattr(Follower, "start", lambda *_, **__: None)
    monkeypatch.setattr(Follower, "end", lambda self, *how: ends.append(how))
    with pytest.raises(SystemExit, match=r"the loss is .* lower candidates\.bars-cnn\.learning\.learning_rate"):
        train_stage.main("bars-cnn")
    assert ends[0][0] == "FAILED" and "batch 2" in ends[0][1]
    assert not list(tmp_path.glob("candidates/*")) + list(tmp_path.glob("reports/*"))


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


NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trained_with(folder: Path, kind: str, architecture: str, **trainer: Any) -> Path:
    """Weights of a training of two epochs with these settings of the trainer."""
    fit(kind, architecture, folder, epochs=2, trainer=TRAINER.model_copy(update=trainer))
    return folder / "candidate" / "weights.safetensors"


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        np.testing.assert_allclose(second[name], weight, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("architecture", ["cnn", "lstm"])
def test_channels_last_changes_only_the_order_in_memory(architecture: str, tmp_path: Path) -> None:
    one = trained_with(tmp_path / "one", "image", architecture)
    assert_close(one, trained_with(tmp_path / "other", "image", architecture, channels_last=True), 1e-3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")  # torch of itself
def test_a_compiled_network_gives_the_same_weights_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trained_with(tmp_path / "one", "text", "cnn")
    # Generating C++ takes a minute of a core; GPUs test that. Here the network is traced and run as it is.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    assert_close(one, trained_with(tmp_path / "other", "text", "cnn", compile=True), 1e-3)


GPU_PATHS = [
    {},
    {"precision": "32-true", "float32_matmul_precision": "high"},
    {"channels_last": True},
    {"compile": True},
]


@NEEDS_GPU
@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")  # torch of itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # its tracing
@pytest.mark.parametrize("settings", GPU_PATHS, ids=str)
@pytest.mark.parametrize(
    ("kind", "architecture", "muon"), [*((*each, None) for each in NETWORKS), ("image", "cnn", 0.02)]
)
def test_every_path_on_a_gpu_learns(
    kind: str, architecture: str, muon: float | None, settings: dict[str, Any], tmp_path: Path
) -> None:
    trainer = TRAINER.model_copy(update={"accelerator": "gpu", **settings})
    how: dict[str, Any] = {"epochs": 12} | SLOW.get((kind, architecture), {})
    trained, validation = fit(kind, architecture, tmp_path, trainer=trainer, muon_learning_rate=muon, **how)
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    assert metrics["accuracy"] >= 0.9


def test_automatic_precision_is_32_bits_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert resolve_precision(TRAINER.model_copy(update={"accelerator": "auto"})) == "32-true"


@NEEDS_GPU
def test_automatic_precision_is_bf16_on_a_gpu_that_has_it() -> None:
    found = resolve_precision(TRAINER.model_copy(update={"accelerator": "auto"}))
    assert found == ("bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true")
