"""Prepared texts -> the candidate that reads a text in pieces: weights, validation metrics, curves."""

from convoy.core import stage
from convoy.core.params import read_section
from convoy.training.candidate import Candidate, CandidateParams, train_candidate
from convoy.training.checkpoints import TrainingRunning
from convoy.training.trainer import TrainerParams


class Params(CandidateParams):
    """The section train_stream of params.yaml."""

    trainer: TrainerParams


def main() -> None:
    """Train it on whole texts, as `train` does with the others."""
    params = read_section(Params, "train_stream")
    train_candidate(Candidate("text-stream", "lstm", ("train_stream",)), params.trainer, params)


if __name__ == "__main__":
    stage.run(main, refusals=(TrainingRunning,))
