"""Datasets and a candidate's params -> trained weights, metrics and curves, by a Lightning Trainer."""

import csv
import io
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from tqdm import tqdm

from convoy.candidates import EVALUATION_BATCH, Dataset
from convoy.classifier import Classifier, LearningParams
from convoy.params import Section

MONITOR = "validation_log_loss"
CURVES = ("epoch", "train_loss", "validation_log_loss", "validation_accuracy", "learning_rate", "elapsed_s")


class TrainerParams(Section):
    """Where and how exactly training runs."""

    seed: int
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    devices: Literal[1]  # the batches are not yet divided between several
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Trained:
    """What training gives: the network with its best weights, its epoch (from 0), and a row of figures per epoch."""

    network: nn.Module
    best_epoch: int
    curves: list[dict[str, float]]


class Splits(pl.LightningDataModule):
    """Batches for the Trainer. Each epoch's are drawn from (seed, epoch), so that no random state need be kept."""

    def __init__(self, train: Dataset, validation: Dataset, batches: Any, seed: int) -> None:
        super().__init__()
        self.train, self.validation, self.batches, self.seed = train, validation, batches, seed

    def train_dataloader(self) -> Any:
        """This epoch's batches; the Trainer asks anew for each epoch."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        return self.train.training_batches(self.batches, self.seed, self.trainer.current_epoch, device)

    def val_dataloader(self) -> Any:
        """The whole validation split, in order."""
        assert self.trainer is not None
        return InOrder(self.validation.evaluation_batches(EVALUATION_BATCH, self.trainer.strategy.root_device))


class InOrder:
    """Batches as one loader; a bare list would be taken for several loaders."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self._batches)


class Progress(pl.Callback):
    """One bar for the whole training: what, how far, how long to go, and how good it is by now."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a log a line each half minute is enough."""
        interval_s = 0.5 if sys.stderr.isatty() else 30
        steps = int(trainer.estimated_stepping_batches)
        self._bar = tqdm(total=steps, desc=self.title, unit="batch", mininterval=interval_s, maxinterval=interval_s)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name the epoch."""
        self._bar.set_description(f"{self.title}, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}")

    def on_train_batch_end(self, *_: Any) -> None:
        """Count."""
        self._bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what validation said."""
        figures = trainer.callback_metrics
        self._bar.set_postfix(accuracy=f"{figures['validation_accuracy']:.4f}", log_loss=f"{figures[MONITOR]:.4f}")

    def on_train_end(self, *_: Any) -> None:
        """Leave the finished bar."""
        self._bar.close()


class Curves(pl.Callback):
    """Keeps a row of figures per epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._started_s = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs after validation, when all figures of the epoch are known."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        elapsed_s = round(time.perf_counter() - self._started_s, 2)
        row = {"epoch": trainer.current_epoch, **figures, "learning_rate": rate, "elapsed_s": elapsed_s}
        self.rows.append({name: row[name] for name in CURVES})


def train(
    network: nn.Module,
    splits: Splits,
    params: TrainerParams,
    learning: LearningParams,
    title: str = "training",
    callbacks: Sequence[pl.Callback] = (),
) -> Trained:
    """Train until the last epoch or until validation has not improved for `patience` epochs; keep the best weights."""
    curves = Curves()
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # tips and devices, at each start
    with tempfile.TemporaryDirectory() as scratch:
        best = ModelCheckpoint(scratch, filename="{epoch}", monitor=MONITOR, save_weights_only=True)
        trainer = pl.Trainer(
            accelerator=params.accelerator,
            devices=params.devices,
            precision=resolve_precision(params),
            max_epochs=learning.epochs,
            callbacks=[best, EarlyStopping(MONITOR, patience=learning.patience), curves, Progress(title), *callbacks],
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            deterministic=True,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        # Lightning asks torch for its tree leaves in the old way, and torch says so at each epoch.
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        trainer.fit(Classifier(network, learning), datamodule=splits)
        _restore(network, Path(best.best_model_path))
    best_row = min(curves.rows, key=lambda row: row[MONITOR])
    return Trained(network, int(best_row["epoch"]), curves.rows)


def resolve_precision(params: TrainerParams) -> Any:
    """`auto` is bf16 on a GPU that has it, else 32 bits."""
    if params.precision != "auto":
        return params.precision
    on_gpu = params.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def curves_csv(rows: list[dict[str, float]]) -> bytes:
    """A line per epoch, as `dvc plots` reads it."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, CURVES, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def _restore(network: nn.Module, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): weight for name, weight in state.items()})
    network.cpu().eval()
