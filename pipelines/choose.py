"""Validation metrics of a task's candidates -> the winner. Argument: task."""

import json
import sys
from collections.abc import Mapping
from typing import Literal

from convoy.core import atomic, paths, stage
from convoy.core.params import Section, read_section
from convoy.core.paths import Task


class SelectionParams(Section):
    """The metric on the validation split by which the winner is chosen."""

    metric: Literal["accuracy", "macro_f1", "log_loss"]


def choose_winner(metrics: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """The candidate with the best `metric`: the least log_loss, else the greatest value; ties go to the first name."""
    if not metrics:
        raise ValueError("there is no candidate to choose from; run the train stages first")
    sign = 1 if metric == "log_loss" else -1
    return min(sorted(metrics), key=lambda name: sign * metrics[name][metric])


def main(task: Task) -> None:
    """Choose by files that DVC tracks, so that the choice is reproducible."""
    params = read_section(SelectionParams, "choose")
    files = {name: paths.reports(task) / name / "metrics.json" for name in paths.ARCHITECTURES}
    metrics: dict[str, dict[str, float]] = {
        name: json.loads(path.read_bytes())["validation"] for name, path in files.items()
    }
    winner = choose_winner(metrics, params.metric)
    atomic.write_json(paths.choice(task), {"architecture": winner, "metric": params.metric, "candidates": metrics})
    values = {name: figures[params.metric] for name, figures in metrics.items()}
    print(f"{task}: {winner} wins by {params.metric}: {values}")


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
