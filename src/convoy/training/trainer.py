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
from convoy.kinds.learning import candidates
from convoy.kinds.learning.candidates import EVALUATION_BATCH, Dataset
from convoy.training.callbacks import (
    CURVES,
    BestWeights,
    Curves,
    DivergenceCheck,
    Interruption,
    Progress,
    ResumableEarlyStopping,
    SeedEachEpoch,
)
from convoy.training.checkpoints import (
    AtomicCheckpointIO,
    epochs_done,
    is_first_process,
    make_checkpoint_callback,
    newest_readable,
)
from convoy.training.classifier import Classifier, LearningParams, class_weights


class TrainerParams(Section):
    """The device and the precision of training."""

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
    """The result of a training: the network with its best weights, their epoch (from 0), and a row per epoch."""

    network: nn.Module
    best_epoch: int
    curves: list[dict[str, float]]


class Splits(pl.LightningDataModule):
    """Batches for the Trainer. Those of an epoch are drawn from (seed, epoch), so that no random state is kept."""

    def __init__(self, train: Dataset, validation: Dataset, batches: Any, seed: int) -> None:
        super().__init__()
        self.train, self.validation, self.batches, self.seed = train, validation, batches, seed
        self.replays = 1  # how often in a row each batch comes; `train` takes it from the network

    def train_dataloader(self) -> Any:
        """This epoch's batches; the Trainer calls this for each epoch."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        batches = self.train.training_batches(self.batches, self.seed, self.trainer.current_epoch, device)
        processes = self.trainer.world_size
        shared = batches if processes == 1 else Share(batches, self.trainer.global_rank, processes)
        return shared if self.replays == 1 else Replay(shared, self.replays)

    def val_dataloader(self) -> Any:
        """The whole validation split, in order; each of several processes evaluates all of it by itself."""
        assert self.trainer is not None
        return self.validation.evaluation_batches(EVALUATION_BATCH, self.trainer.strategy.root_device)


class Share:
    """The part of each batch that one of several processes takes: together they do the work of one process.

    A part is a contiguous block. So in a network that treats every n-th input alike, as an ensemble does, each input
    is where it would be in one process, if n divides the block. Raises ParamsInvalid for a batch that does not divide.
    """

    def __init__(self, batches: Any, rank: int, processes: int) -> None:
        self._batches, self._rank, self._processes = batches, rank, processes

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in self._batches:
            block, remainder = divmod(len(labels), self._processes)
            if remainder:
                raise ParamsInvalid(
                    f"{paths.PARAMS}: batches.size is {len(labels)}, which {self._processes} processes "
                    "(trainer.devices x num_nodes) cannot share evenly; choose a multiple"
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

    With a `folder` the last epochs are kept there, and an interrupted training resumes from the last readable one.
    Raises Diverged for a loss that is not finite, Interrupted where SIGINT or SIGTERM comes.
    """
    _silence_lightning()
    torch.set_float32_matmul_precision(params.float32_matmul_precision)
    splits.replays = getattr(network, "replays", 1)
    curves, best = Curves(), BestWeights(network, learning.monitor)
    early_stopping = ResumableEarlyStopping(learning.monitor, patience=learning.patience)
    own_callbacks = [best, curves, early_stopping, DivergenceCheck(), SeedEachEpoch(params.seed)]
    checkpointing = [make_checkpoint_callback(folder)] if folder else []
    unfinished = newest_readable(folder) if folder else None
    if unfinished is None:
        candidates.pretrain(network, splits.train, params.seed)
    elif is_first_process():
        print(f"{title}: goes on after epoch {epochs_done(unfinished)} of {learning.epochs} ({unfinished})", flush=True)
    with Interruption() as interruption:
        all_callbacks = [*own_callbacks, *callbacks, *checkpointing, Progress(title), interruption]
        trainer = _build_trainer(params, learning.epochs, all_callbacks)
        weights = class_weights(splits.train.labels, learning, len(splits.train.names))
        model = Classifier(_prepare_network(network, params), learning, weights)
        trainer.fit(model, datamodule=splits, ckpt_path=unfinished, weights_only=True)
    network.load_state_dict(best.weights)
    return Trained(network.cpu().eval(), best.epoch, curves.rows)


def resolve_precision(params: TrainerParams) -> Any:
    """`auto` is bf16 on a GPU that has it, else 32 bits."""
    if params.precision != "auto":
        return params.precision
    on_gpu = params.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def curves_csv(rows: list[dict[str, float]]) -> bytes:
    """A CSV line per epoch, for `dvc plots`."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, CURVES, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def _build_trainer(params: TrainerParams, epochs: int, callbacks: list[pl.Callback]) -> pl.Trainer:
    on_gpu = params.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    # With `deterministic` torch fills the memory it allocates, for code that reads before it writes: 8 % of a step.
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
        plugins=[AtomicCheckpointIO(), *_cluster_environments()],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        deterministic=True,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def _cluster_environments() -> list[SLURMEnvironment]:
    """SLURM's, where Lightning would choose it, but without its checkpoint for a job that is queued again.

    Lightning would write that checkpoint into the working folder, never remove it, and begin every later training of
    any candidate with it; here a training resumes from its own checkpoints.
    """
    on_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if on_slurm else []


def _prepare_network(network: nn.Module, params: TrainerParams) -> nn.Module:
    """The network as training runs it, with the weights of `network`, whose names compilation does not change."""
    if params.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(nn.Module, torch.compile(network)) if params.compile else network


def _silence_lightning() -> None:
    """Hide Lightning's tips, its deprecated use of torch, and its advice to average figures that are equal."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
    warnings.filterwarnings("ignore", ".*recommended to use `self.log.*sync_dist=True")
