"""Validation metrics of the candidates -> the winner; a pure function."""

from collections.abc import Mapping
from typing import Literal

from convoy.core.params import Section


class SelectionParams(Section):
    """What the winner is best at on the validation split."""

    metric: Literal["accuracy", "macro_f1", "log_loss"]


def choose_winner(metrics: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """The candidate with the best `metric`: the least log_loss, else the greatest value; ties go to the first name."""
    if not metrics:
        raise ValueError("there is no candidate to choose from; run the train stages first")
    sign = 1 if metric == "log_loss" else -1
    return min(sorted(metrics), key=lambda name: sign * metrics[name][metric])
