"""Prepared splits and a section of params.yaml -> one trained candidate: weights, validation metrics, curves."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from convoy.core import atomic, paths
from convoy.core.params import Section, read_section
from convoy.core.paths import Architecture, Task
from convoy.evaluation.metrics import classification_metrics
from convoy.kinds import candidates
from convoy.kinds.candidates import Dataset, Description
from convoy.training.callbacks import Diverged, FollowerUpdates, Interrupted
from convoy.training.checkpoints import fingerprint, training_environment, training_folder
from convoy.training.classifier import LearningParams
from convoy.training.follower import Follower
from convoy.training.trainer import Splits, Trained, TrainerParams, curves_csv, train


class CandidateParams(Section):
    """The section of a candidate in params.yaml."""

    learning: LearningParams
    batches: dict[str, Any]
    network: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """Which candidate is trained, and the keys of its section in params.yaml."""

    task: Task
    architecture: Architecture
    section: tuple[str, ...]

    @property
    def name(self) -> str:
        """As in its folder and in printed lines."""
        return f"{self.task}-{self.architecture}"


def train_candidate(candidate: Candidate, trainer: TrainerParams, params: CandidateParams) -> None:
    """Train one candidate, or resume its interrupted training, and write the outputs of the stage."""
    task, architecture, name = candidate.task, candidate.architecture, candidate.name
    batches = read_section(candidates.batch_model(task), *candidate.section, "batches")
    read_section(candidates.network_model(task, architecture), *candidate.section, "network")
    pl.seed_everything(trainer.seed, workers=True, verbose=False)
    split_files = [paths.prepared(task, "train"), paths.prepared(task, "validation")]
    training, validation = (candidates.open_dataset(task, file) for file in split_files)
    settings = {"seed": trainer.seed, "learning": params.learning.model_dump(), "batches": params.batches}
    description = candidates.describe(task, architecture, params.network, training, settings)
    network = candidates.build(description)
    splits = Splits(training, validation, batches, trainer.seed)
    environment = training_environment(trainer.accelerator)
    data_files = [*split_files, *_tokenisation_files(task)]
    identity = fingerprint({"trainer": trainer.model_dump(), **params.model_dump()}, data_files, environment)
    with training_folder(name, identity) as folder, _report_outcome(candidate) as follower:
        run = {"task": task, "architecture": architecture, "fingerprint": identity, "params": params.model_dump()}
        trained = train(network, splits, trainer, params.learning, name, [FollowerUpdates(follower, **run)], folder)
        _write_outputs(description, trained, validation, {"fingerprint": identity, **environment})


def _tokenisation_files(task: Task) -> list[Path]:
    """The files that tokenise texts in pieces as they are read; the splits of other tasks hold prepared inputs."""
    return [paths.contract(task), paths.TOKENIZER] if task == "text-stream" else []


@rank_zero_only
def _write_outputs(description: Description, trained: Trained, validation: Dataset, record: dict[str, Any]) -> None:
    """Evaluate the best weights on the validation split; write all outputs of the stage, in one process of several."""
    task, architecture = description.task, description.architecture
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    parameters = sum(weight.numel() for weight in trained.network.parameters())
    report = {"validation": metrics, "best_epoch": trained.best_epoch, "parameters": parameters}
    folder = paths.reports(task) / architecture
    candidates.save(paths.candidate(task, architecture), description, trained.network)
    atomic.write_bytes(folder / "curves.csv", curves_csv(trained.curves))
    atomic.write_json(folder / "metrics.json", report)
    atomic.write_json(folder / "training.json", record)
    print(f"{task}-{architecture}: {parameters} parameters, validation {metrics}")


@contextmanager
def _report_outcome(candidate: Candidate) -> Iterator[Follower]:
    """Send a follower how the training inside ended, and print it. Raises SystemExit where the training diverged."""
    follower = Follower()
    try:
        yield follower
    except Interrupted as interruption:
        follower.end("KILLED", interruption.name)
        remedy = "`dvc repro` goes on from the last whole checkpoint"
        print(f"{candidate.name}: stopped by {interruption.name}; {remedy}", file=sys.stderr)
        raise
    except Diverged as error:
        follower.end("FAILED", str(error))
        key = ".".join([*candidate.section, "learning.learning_rate"])
        raise SystemExit(f"{candidate.name}: {error}; nothing was written; lower {key} in params.yaml") from None
    except Exception as error:
        follower.end("FAILED", f"{type(error).__name__}: {error}")
        raise
    else:
        follower.end("FINISHED")
