"""Prepared splits -> one trained candidate: weights, validation metrics, curves. Arguments: task, architecture."""

import sys

from convoy.core import stage
from convoy.core.params import read_section
from convoy.core.paths import Architecture, DataKind
from convoy.training.candidate import Candidate, CandidateParams, train_candidate
from convoy.training.checkpoints import TrainingRunning
from convoy.training.trainer import TrainerParams


class Params(CandidateParams):
    """The section of one candidate, train.<task>.<architecture>."""


def main(task: DataKind, architecture: Architecture) -> None:
    """Train one candidate, or resume its interrupted training, and write the results."""
    trainer = read_section(TrainerParams, "train", "trainer")
    section = ("train", task, architecture)
    train_candidate(Candidate(task, architecture, section), trainer, read_section(Params, *section))


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:], refusals=(TrainingRunning,))
