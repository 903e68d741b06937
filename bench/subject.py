"""A candidate on some of its data -> samples per second of one epoch, by Lightning or by the plain loop."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from bench.loop import train_by_hand
from bench.samples import SEED
from convoy.core import params, tasks
from convoy.core.params import read_section
from convoy.kinds.learning import candidates
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.registry import module
from convoy.training.candidate import CandidateParams
from convoy.training.classifier import LearningParams
from convoy.training.trainer import Splits, TrainerParams, train

CPU = torch.device("cpu")  # the goals are those of a machine without a GPU


def find(name: str) -> tuple[tasks.Candidate, CandidateParams]:
    """A candidate of params.yaml and its entry. Raises TaskUnknown, or ParamsInvalid."""
    return tasks.read().candidate(name), read_section(CandidateParams, "candidates", name)


def input_contract(candidate: tasks.Candidate, entry: CandidateParams, prepared: Path) -> InputContract:
    """The contract of a candidate's inputs, of data prepared in a folder. Raises ParamsInvalid."""
    contract: InputContract = module(candidate.kind, "items.inputs").make(
        prepared, entry.input or {}, f"{candidate.key}.input"
    )
    return contract


class Stopwatch(pl.Callback):
    """Seconds from the start of each training epoch to its validation: all that Lightning and our callbacks do there.

    Left out is what the plain loop does not do either: validation, the checkpoint and the Trainer's own start.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started_s = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self._started_s = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        self.seconds += time.perf_counter() - self._started_s


@dataclass(frozen=True)
class Subject:
    """One candidate on some of its data, trained for one epoch, from the same weights each time."""

    candidate: tasks.Candidate
    params: CandidateParams
    contract: InputContract
    data: candidates.Dataset
    channels_last: bool = False  # as section trainer has it: both paths compute in the same memory format

    @property
    def batch_params(self) -> Any:
        """How batches are drawn."""
        model, key = candidates.batch_model(self.candidate.kind), f"{self.candidate.key}.batches"
        return params.validate(model, self.params.batches, key)

    @property
    def batches(self) -> Any:
        """One epoch of our batches, the same each time."""
        return self.data.training_batches(self.batch_params, SEED, 0, CPU)

    @property
    def learning(self) -> LearningParams:
        """That of params.yaml, for one epoch."""
        return self.params.learning.model_copy(update={"epochs": 1})

    def network(self) -> nn.Module:
        """The candidate's network, untrained."""
        pl.seed_everything(SEED, verbose=False)
        description = candidates.describe(self.candidate, self.params.network, self.contract, self.data, {})
        network = candidates.build(description)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def by_lightning(self, trainer: TrainerParams, validation: candidates.Dataset) -> float:
        """Samples per second of the path that `dvc repro` takes."""
        stopwatch = Stopwatch()
        splits = Splits(self.data, validation, self.batch_params, SEED)
        train(self.network(), splits, trainer, self.learning, "lightning", callbacks=[stopwatch])
        return len(self.batches) * int(self.batch_params.size) / stopwatch.seconds

    def by_hand(self, batches: Any) -> float:
        """Samples per second of the hand-written loop on these batches."""
        seconds = train_by_hand(self.network(), batches, len(batches), self.learning, SEED)
        return len(batches) * int(self.params.batches["size"]) / seconds
