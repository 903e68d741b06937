"""Prepared splits -> one trained candidate: weights, validation metrics, curves. Arguments: task, architecture."""

import sys
from typing import Any, cast

import pytorch_lightning as pl

from convoy import atomic, candidates, layout
from convoy.classifier import LearningParams
from convoy.layout import Architecture, Task
from convoy.metrics import classification_metrics
from convoy.params import Section, read_section
from convoy.training import Splits, TrainerParams, curves_csv, train


class Params(Section):
    """The section of one candidate, train.<task>.<architecture>."""

    learning: LearningParams
    batches: dict[str, Any]
    network: dict[str, Any]


def main(task: Task, architecture: Architecture) -> None:
    """Train one candidate and judge its best weights on the validation split."""
    trainer_params = read_section(TrainerParams, "train", "trainer")
    params = read_section(Params, "train", task, architecture)
    pl.seed_everything(trainer_params.seed, workers=True)
    training = candidates.open_dataset(task, layout.prepared(task, "train"))
    validation = candidates.open_dataset(task, layout.prepared(task, "validation"))
    description = candidates.Description(
        task=task,
        architecture=architecture,
        network=params.network,
        dimensions=training.dimensions,
        labels=training.names,
        training={
            "seed": trainer_params.seed,
            "learning": params.learning.model_dump(),
            "batches": params.batches,
        },
    )
    network = candidates.build(description)
    batches = candidates.batch_params(task, params.batches)
    splits = Splits(training, validation, batches, trainer_params.seed)
    trained = train(network, splits, trainer_params, params.learning, f"{task}-{architecture}")
    metrics = classification_metrics(validation.labels, candidates.probabilities(trained.network, validation))
    parameters = sum(weight.numel() for weight in network.parameters())
    report = {"validation": metrics, "best_epoch": trained.best_epoch, "parameters": parameters}
    folder = layout.reports(task) / architecture
    candidates.save(layout.candidate(task, architecture), description, trained.network)
    atomic.write_bytes(folder / "curves.csv", curves_csv(trained.curves))
    atomic.write_json(folder / "metrics.json", report)
    print(f"{task}-{architecture}: {parameters} parameters, validation {metrics}")


if __name__ == "__main__":
    main(cast(Task, sys.argv[1]), cast(Architecture, sys.argv[2]))
