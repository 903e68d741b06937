"""Validation metrics of a task's candidates -> the winner, and a copy of its folder. Argument: task."""

import json
import sys
from collections.abc import Mapping
from typing import Literal

from convoy.core import atomic, paths, stage, tasks
from convoy.core.params import ParamsInvalid, Section, read_section


class SelectionParams(Section):
    """The metric on the validation split by which the winner is chosen."""

    metric: Literal["accuracy", "macro_f1", "log_loss"]


class CandidateUnknown(ValueError):
    """A folder of candidates/ that no entry of params.yaml names."""


def choose_winner(metrics: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """The candidate with the best `metric`: the least log_loss, else the greatest value; ties go to the first name."""
    if not metrics:
        raise ValueError("there is no candidate to choose from; run the train stages first")
    sign = 1 if metric == "log_loss" else -1
    return min(sorted(metrics), key=lambda name: sign * metrics[name][metric])


def main(task: str) -> None:
    """Choose by files that DVC tracks, so that the choice is reproducible."""
    params = read_section(SelectionParams, "choose")
    entries = tasks.read()
    names = [candidate.name for candidate in entries.of_task(entries.task(task).name)]
    _refuse_unknown(task, names)
    files = {name: paths.candidate(task, name) / "candidate.json" for name in names}
    metrics = {name: json.loads(file.read_bytes())["validation"] for name, file in files.items()}
    winner = choose_winner(metrics, params.metric)
    with atomic.new_folder(paths.winner(task)) as temporary:
        for file in sorted(paths.candidate(task, winner).iterdir()):
            atomic.write_bytes(temporary / file.name, file.read_bytes())
    atomic.write_json(paths.choice(task), {"candidate": winner, "metric": params.metric, "candidates": metrics})
    values = {name: figures[params.metric] for name, figures in metrics.items()}
    print(f"{task}: {winner} wins by {params.metric}: {values}")


def _refuse_unknown(task: str, entries: list[str]) -> None:
    """A candidate that was removed from params.yaml must not win: DVC leaves its folder where it is."""
    folders = sorted(path.name for path in paths.candidates(task).iterdir() if path.is_dir())
    if unknown := [name for name in folders if name not in entries]:
        raise CandidateUnknown(
            f"{paths.candidates(task)} holds {', '.join(unknown)}, which no entry of candidates in {paths.PARAMS} has "
            f"for task {task}; remove that folder (`rm -r {paths.candidate(task, unknown[0])}`), or put its entry back"
        )


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:], refusals=(CandidateUnknown, ParamsInvalid))
