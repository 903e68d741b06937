"""Datasets and a candidate's params -> trained weights, metrics and curves, by a Lightning Trainer."""

import csv
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pydantic import Field
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from convoy.core import paths
from convoy.core.params import ParamsInvalid, Section
from convoy.kinds import candidates
from convoy.kinds.candidates import EVALUATION_BATCH, Dataset
from convoy.training.callbacks import (
    CURVES,
    BestWeights,
    Curves,
    Divergence,
    Interruption,
    Patience,
    Progress,
    SeedEachEpoch,
)
from convoy.training.checkpoints import AtomicCheckpointIO, epochs_done, every_epoch, is_first_process, newest_whole
from convoy.training.classifier import Classifier, LearningParams, class_weights


class TrainerParams(Section):
    """Where and how exactly training runs."""

    seed: int
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    devices: int = Field(ge=1)
    num_nodes: int = Field(ge=1)
    strategy: Literal["auto", "ddp"]
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    float32_matmul_precision: Literal["highest", "high"]
    compile: bool
    channels_last: bool


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
        self.replays = 1  # how often in a row each batch comes; a network may want more (`train`)

    def train_dataloader(self) -> Any:
        """This epoch's batches; the Trainer asks anew for each epoch."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        batches = self.train.training_batches(self.batches, self.seed, self.trainer.current_epoch, device)
        world = self.trainer.world_size
        shared = batches if world == 1 else Share(batches, self.trainer.global_rank, world)
        return shared if self.replays == 1 else Replay(shared, self.replays)

    def val_dataloader(self) -> Any:
        """The whole validation split, in order; of several processes each judges all of it, which needs no exchange."""
        assert self.trainer is not None
        return self.validation.evaluation_batches(EVALUATION_BATCH, self.trainer.strategy.root_device)


class Share:
    """The part of each batch that one of `world` processes takes: together they do the work of one process.

    Whole blocks, so that in a network that treats every n-th input alike, as an ensemble does, each input is where it
    would be without other processes, if n divides the block.
    """

    def __init__(self, batches: Any, rank: int, world: int) -> None:
        self._batches, self._rank, self._world = batches, rank, world

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in self._batches:
            block, left = divmod(len(labels), self._world)
            if left:
                raise ParamsInvalid(
                    f"{paths.PARAMS}: batches.size is {len(labels)}, which {self._world} processes "
                    "(train.trainer.devices x num_nodes) cannot share evenly; choose a multiple"
                )
            rows = slice(self._rank * block, (self._rank + 1) * block)
            yield inputs[rows], labels[rows]


class Replay:
    """Each batch several times in a row (minibatch replays, Shafahi et al. 2019, arXiv:1904.12843)."""

    def __init__(self, batches: Any, times: int) -> None:
        self._batches, self._times = batches, times

    def __len__(self) -> int:
        return len(self._batches) * self._times

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._batches:
            yield from [batch] * self._times


def train(
    network: nn.Module,
    splits: Splits,
    params: TrainerParams,
    learning: LearningParams,
    title: str = "training",
    callbacks: Sequence[pl.Callback] = (),
    folder: Path | None = None,
) -> Trained:
    """Train until the last epoch or until validation has not improved for `patience` epochs; keep the best weights.

    With a `folder` each epoch is kept there, and a training that was interrupted goes on from the last whole one.
    Raises Diverged for a loss that is not finite, Interrupted where SIGINT or SIGTERM comes.
    """
    _hush()
    torch.set_float32_matmul_precision(params.float32_matmul_precision)
    splits.replays = getattr(network, "replays", 1)
    curves, best = Curves(), BestWeights(network, learning.monitor)
    patience = Patience(learning.monitor, patience=learning.patience)
    own = [best, curves, patience, Divergence(), SeedEachEpoch(params.seed)]
    kept = [every_epoch(folder)] if folder else []
    unfinished = newest_whole(folder) if folder else None
    if unfinished is None:
        candidates.pretrain(network, splits.train, params.seed)
    elif is_first_process():
        print(f"{title}: goes on after epoch {epochs_done(unfinished)} of {learning.epochs} ({unfinished})", flush=True)
    with Interruption() as interruption:
        trainer = _trainer(params, learning.epochs, [*own, *callbacks, *kept, Progress(title), interruption])
        weights = class_weights(splits.train.labels, learning, len(splits.train.names))
        model = Classifier(_prepared(network, params), learning, weights)
        trainer.fit(model, datamodule=splits, ckpt_path=unfinished, weights_only=True)
    network.load_state_dict(best.weights)
    return Trained(network.cpu().eval(), best.epoch, curves.rows)


def _trainer(params: TrainerParams, epochs: int, callbacks: list[pl.Callback]) -> pl.Trainer:
    on_gpu = params.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    # With `deterministic` torch fills what it allocates, for code that reads what it never wrote: 8 % of a step here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return pl.Trainer(
        accelerator=params.accelerator,
        devices=params.devices,
        num_nodes=params.num_nodes,
        strategy=params.strategy,
        precision=resolve_precision(params),
        sync_batchnorm=on_gpu and params.devices * params.num_nodes > 1,  # torch has it for GPUs only
        max_epochs=epochs,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), *_environment()],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        deterministic=True,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def _environment() -> list[SLURMEnvironment]:
    """SLURM's, where Lightning would take it, but without its own file for a job that is queued again.

    Lightning would write that one into the working folder, never remove it, and begin every later training with it,
    of whatever candidate: ours go on from their own checkpoints.
    """
    found = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if found else []


def _prepared(network: nn.Module, params: TrainerParams) -> nn.Module:
    """The network as its steps run; its weights stay those of `network`, whose names know nothing of compilation."""
    if params.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(nn.Module, torch.compile(network)) if params.compile else network


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


def _hush() -> None:
    """No tips of Lightning, nor its old way to ask torch for tree leaves, nor advice to average equal figures."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
    warnings.filterwarnings("ignore", ".*recommended to use `self.log.*sync_dist=True")
