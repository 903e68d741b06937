"""What happens beside the steps of a training: figures, best weights, random state, signs of divergence, signals."""

import math
import signal
import sys
import time
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn
from tqdm import tqdm

from convoy.training.follower import Follower

CURVES = ("epoch", "train_loss", "validation_log_loss", "validation_accuracy", "learning_rate", "elapsed_s")


class Diverged(RuntimeError):
    """The loss or a weight is not a finite number; says where."""


class Progress(pl.Callback):
    """One bar for the whole training: what, how far, how long to go, and how good it is by now."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a log a line each half minute is enough."""
        interval_s = 0.5 if sys.stderr.isatty() else 30
        self._bar = tqdm(
            total=int(trainer.estimated_stepping_batches),
            initial=trainer.global_step,
            desc=self.title,
            unit="batch",
            mininterval=interval_s,
            maxinterval=interval_s,
            disable=not trainer.is_global_zero,
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name the epoch."""
        self._bar.set_description(f"{self.title}, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}")

    def on_train_batch_end(self, *_: Any) -> None:
        """Count."""
        self._bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what validation said."""
        figures = {name: f"{trainer.callback_metrics[f'validation_{name}']:.4f}" for name in ("accuracy", "log_loss")}
        self._bar.set_postfix(figures)

    def on_train_end(self, *_: Any) -> None:
        """Leave the finished bar."""
        self._bar.close()

    def on_exception(self, *_: Any) -> None:
        """Leave the bar as it is, so that what is said next has a line of its own."""
        if self._bar is not None:
            self._bar.close()


class Curves(pl.Callback):
    """Keeps a row of figures per epoch; its clock goes on where a resumed training was left."""

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

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = state_dict["rows"]
        self._started_s = time.perf_counter() - self.rows[-1]["elapsed_s"]


class BestWeights(pl.Callback):
    """Keeps the weights of the epoch with the lowest `monitor`, and its number (from 0).

    They are part of every checkpoint, so that one file is all of a training: with Lightning's own second file, a kill
    between the two writes leaves a record of best weights that are gone.
    """

    def __init__(self, network: nn.Module, monitor: str) -> None:
        self.network, self.monitor = network, monitor
        self.score, self.epoch = math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs after validation."""
        score = float(trainer.callback_metrics[self.monitor])
        if score < self.score:
            self.score, self.epoch = score, trainer.current_epoch
            self.weights = {name: weight.detach().cpu().clone() for name, weight in self.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.score, self.epoch, self.weights = state_dict["score"], state_dict["epoch"], state_dict["weights"]


class Patience(EarlyStopping):
    """Lightning's EarlyStopping, which forgets on resuming that it had already stopped."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop again."""
        trainer.should_stop = self.stopped_epoch > 0


class SeedEachEpoch(pl.Callback):
    """Draws dropout from (seed, epoch, rank), as the batches are: Lightning saves no random state."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs on a resumed training too."""
        seed_epoch(self.seed, trainer.current_epoch, trainer.global_rank)


class Divergence(pl.Callback):
    """Ends a training whose loss is no finite number before a weight takes harm. Raises Diverged."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Looks at every step's loss."""
        if not torch.isfinite(loss):
            raise Diverged(f"the loss is {loss.item()} {_place(trainer)}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last step of an epoch has no next loss to show what it did."""
        for name, weight in pl_module.named_parameters():
            if not torch.isfinite(weight).all():
                raise Diverged(f"{name} is no longer finite {_place(trainer)}")


class Following(pl.Callback):
    """Tells a Follower of each epoch once a checkpoint has it, so that no resumed training tells of it again."""

    def __init__(self, follower: Follower, **about: Any) -> None:
        self.follower, self.about = follower, about
        self._told = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, with the epochs that a resumed training has behind it."""
        rows = _rows(trainer)
        self._told = len(rows)
        if trainer.is_global_zero:  # a follower that was not started tells nobody
            self.follower.start(**self.about, rows=rows)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell of the epoch before."""
        for row in _rows(trainer)[self._told :]:
            self.follower.epoch(row)
            self._told += 1

    on_train_end = on_train_epoch_start


class Interrupted(SystemExit):
    """SIGINT or SIGTERM came; the exit code is 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class Interruption(pl.Callback):
    """Ends a training at once when SIGINT or SIGTERM comes; to be used as a context too. Raises Interrupted.

    With Lightning's own handlers the exit code is 1, and 0 not before the epoch ends. Nothing needs to be saved: what
    counts is in the last checkpoint. Lightning puts its handlers in place as fit begins, this takes them back.
    """

    def __init__(self) -> None:
        self._launcher: Any = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals back."""
        self._launcher = trainer.strategy.launcher
        for number in self._before:
            signal.signal(number, self._end)

    def _end(self, number: int, _: FrameType | None) -> None:
        if self._launcher is not None:
            self._launcher.kill(signal.SIGKILL)  # the other ranks, which would wait for this one
        raise Interrupted(number)


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Set torch's random state to the one that an epoch begins with."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def _rows(trainer: pl.Trainer) -> list[dict[str, float]]:
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks")  # noqa: B009 - Lightning sets it where mypy cannot see
    return next(callback.rows for callback in callbacks if isinstance(callback, Curves))


def _place(trainer: pl.Trainer) -> str:
    epoch, batch = trainer.current_epoch + 1, trainer.fit_loop.batch_idx + 1
    return (
        f"in epoch {epoch} of {trainer.max_epochs}, batch {batch} of {trainer.num_training_batches} "
        f"(step {trainer.global_step})"
    )
