"""Prepared splits and an entry of params.yaml -> one trained candidate: weights, validation metrics, curves."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from convoy.core import atomic, params, paths
from convoy.core.params import ParamsInvalid, Section
from convoy.core.tasks import Candidate
from convoy.evaluation.metrics import classification_metrics
from convoy.kinds.learning import candidates
from convoy.kinds.learning.candidates import Dataset, Description
from convoy.kinds.learning.input_contract import InputContract
from convoy.training.callbacks import Diverged, FollowerUpdates, Interrupted
from convoy.training.checkpoints import fingerprint, hash_of, training_environment, training_folder
from convoy.training.classifier import LearningParams
from convoy.training.follower import Follower
from convoy.training.trainer import Splits, Trained, TrainerParams, curves_csv, train


class CandidateParams(Section):
    """An entry of `candidates` in params.yaml."""

    task: str
    data: str
    kind: str
    input: dict[str, Any] | None
    network: dict[str, Any]
    learning: LearningParams
    batches: dict[str, Any]


def train_candidate(candidate: Candidate, trainer: TrainerParams, entry: CandidateParams) -> None:
    """Train one candidate, or resume its interrupted training, and write the outputs of the stage."""
    batches = params.validate(candidates.batch_model(candidate.kind), entry.batches, f"{candidate.key}.batches")
    candidates.network_params(candidate, entry.network)
    pl.seed_everything(trainer.seed, workers=True, verbose=False)
    contract = candidates.input_contract(candidate, entry.input)
    split_files = [paths.split_file(candidate.data, "train"), paths.split_file(candidate.data, "validation")]
    training, validation = (candidates.open_dataset(candidate.kind, file, contract) for file in split_files)
    numbers = {name: getattr(entry, name) for name in ("network", "batches", "input")}
    settings = {"seed": trainer.seed, "learning": entry.learning.model_dump(), "batches": entry.batches}
    description = candidates.describe(candidate, entry.network, contract, training, settings)
    network = candidates.build(description)
    _require_state(candidate, contract, network)
    splits = Splits(training, validation, batches, trainer.seed)
    environment = training_environment(trainer.accelerator)
    identity = fingerprint(
        {"trainer": trainer.model_dump(), "learning": entry.learning.model_dump(), **numbers},
        split_files,
        {**environment, "contract": description.contract, "files": list(map(hash_of, contract.files.values()))},
    )
    with training_folder(candidate.name, identity) as folder, _report_outcome(candidate) as follower:
        run = {
            "task": candidate.task,
            "candidate": candidate.name,
            "network": candidate.network,
            "fingerprint": identity,
            "params": {"learning": entry.learning.model_dump(), **numbers},
        }
        updates = FollowerUpdates(follower, **run)
        trained = train(network, splits, trainer, entry.learning, candidate.name, [updates], folder)
        _write_outputs(description, contract.files, trained, validation, {"fingerprint": identity, **environment})


def _require_state(candidate: Candidate, contract: InputContract, network: nn.Module) -> None:
    """Raise ParamsInvalid where texts come in pieces, and the network cannot carry a state from one to the next."""
    if contract.preprocessing.carries_state and not hasattr(network, "step"):
        raise ParamsInvalid(
            f"{paths.PARAMS}: {candidate.key}.input has max_words, which is for a text in pieces, but the network "
            f"{candidate.network} needs the whole text; choose stream_lstm, or remove it"
        )


@rank_zero_only
def _write_outputs(
    description: Description, files: dict[str, bytes], trained: Trained, validation: Dataset, record: dict[str, Any]
) -> None:
    """Evaluate the best weights on the validation split; write all outputs of the stage, in one process of several."""
    task, name = description.task, description.name
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    parameters = sum(weight.numel() for weight in trained.network.parameters())
    figures = {"validation": metrics, "best_epoch": trained.best_epoch, "parameters": parameters}
    folder = paths.candidate_reports(task, name)
    measured = description.model_copy(update={"validation": metrics})
    candidates.save(paths.candidate(task, name), measured, trained.network, files)
    atomic.write_bytes(folder / "curves.csv", curves_csv(trained.curves))
    atomic.write_json(folder / "metrics.json", {**figures, "training": record})
    print(f"{name}: {parameters} parameters, validation {metrics}")


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
        remedy = f"lower {candidate.key}.learning.learning_rate in {paths.PARAMS}"
        raise SystemExit(f"{candidate.name}: {error}; nothing was written; {remedy}") from None
    except Exception as error:
        follower.end("FAILED", f"{type(error).__name__}: {error}")
        raise
    else:
        follower.end("FINISHED")
