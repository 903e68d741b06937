"""Lightning callbacks: progress, curves, best weights, early stopping, seeds, divergence, follower, signals."""

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
    """One bar for the whole training: its title, the batches done, the time left, the last validation figures."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the bar; in a log a line each half minute is enough."""
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
        """Show the figures of validation."""
        figures = {name: f"{trainer.callback_metrics[f'validation_{name}']:.4f}" for name in ("accuracy", "log_loss")}
        self._bar.set_postfix(figures)

    def on_train_end(self, *_: Any) -> None:
        """Leave the finished bar."""
        self._bar.close()

    def on_exception(self, *_: Any) -> None:
        """Leave the bar as it is, so that the next message has a line of its own."""
        if self._bar is not None:
            self._bar.close()


class Curves(pl.Callback):
    """Keeps a row of figures per epoch; the clock of a resumed training goes on where it stopped."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._started_s = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs after validation, when all figures of the epoch exist."""
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

    They are part of every checkpoint, so that one file holds all of a training: with Lightning's own second file, a
    kill between the two writes leaves a record of best weights that are gone.
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


class ResumableEarlyStopping(EarlyStopping):
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


class DivergenceCheck(pl.Callback):
    """Ends a training whose loss is not finite, before the weights change. Raises Diverged."""

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check every step's loss."""
        if not torch.isfinite(loss):
            raise Diverged(f"the loss is {loss.item()} {_describe_position(trainer)}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the weights: the last step of an epoch is followed by no loss."""
        for name, weight in pl_module.named_parameters():
            if not torch.isfinite(weight).all():
                raise Diverged(f"{name} is no longer finite {_describe_position(trainer)}")


class FollowerUpdates(pl.Callback):
    """Sends a Follower each epoch once a checkpoint has it, so that no resumed training sends it again."""

    def __init__(self, follower: Follower, **run: Any) -> None:
        self.follower, self.run = follower, run
        self._sent = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, with the epochs that a resumed training has behind it."""
        rows = _curve_rows(trainer)
        self._sent = len(rows)
        if trainer.is_global_zero:  # a follower that was not started sends nothing
            self.follower.start(**self.run, rows=rows)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the epoch before."""
        for row in _curve_rows(trainer)[self._sent :]:
            self.follower.epoch(row)
            self._sent += 1

    on_train_end = on_train_epoch_start


class Interrupted(SystemExit):
    """SIGINT or SIGTERM came; the exit code is 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class Interruption(pl.Callback):
    """Ends a training at once when SIGINT or SIGTERM comes; to be entered as a context too. Raises Interrupted.

    With Lightning's own handlers the exit code would be 1 or, after the epoch, 0. Nothing needs to be saved: the last
    checkpoint is enough. Lightning sets its handlers as fit begins; this callback sets its own again.
    """

    def __init__(self) -> None:
        self._launcher: Any = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._previous_handlers = {
            number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the handlers again."""
        self._launcher = trainer.strategy.launcher
        for number in self._previous_handlers:
            signal.signal(number, self._end)

    def _end(self, number: int, _: FrameType | None) -> None:
        if self._launcher is not None:
            self._launcher.kill(signal.SIGKILL)  # the other ranks, which would wait for this one
        raise Interrupted(number)


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Set torch's random state to the one that an epoch begins with."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def _curve_rows(trainer: pl.Trainer) -> list[dict[str, float]]:
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks")  # noqa: B009 - Lightning sets it where mypy cannot see
    return next(callback.rows for callback in callbacks if isinstance(callback, Curves))


def _describe_position(trainer: pl.Trainer) -> str:
    epoch, batch = trainer.current_epoch + 1, trainer.fit_loop.batch_idx + 1
    return (
        f"in epoch {epoch} of {trainer.max_epochs}, batch {batch} of {trainer.num_training_batches} "
        f"(step {trainer.global_step})"
    )
