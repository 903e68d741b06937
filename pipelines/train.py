"""Prepared splits -> one trained candidate: weights, validation metrics, curves. Argument: candidate."""

import sys

from convoy.core import stage, tasks
from convoy.core.params import read_section
from convoy.training.candidate import CandidateParams, train_candidate
from convoy.training.checkpoints import TrainingRunning
from convoy.training.trainer import TrainerParams


def main(name: str) -> None:
    """Train one candidate, or resume its interrupted training, and write the results."""
    candidate = tasks.read().candidate(name)
    trainer = read_section(TrainerParams, "trainer")
    train_candidate(candidate, trainer, read_section(CandidateParams, "candidates", name))


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:], refusals=(TrainingRunning,))
