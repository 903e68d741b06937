"""Validation metrics of a task's candidates -> the winner. Argument: task."""

import json
import sys

from convoy.core import atomic, paths, stage
from convoy.core.params import read_section
from convoy.core.paths import Task
from convoy.evaluation.selection import SelectionParams, choose_winner


def main(task: Task) -> None:
    """Choose by files that DVC tracks, so that the choice can be repeated."""
    params = read_section(SelectionParams, "choose")
    files = {name: paths.reports(task) / name / "metrics.json" for name in paths.ARCHITECTURES}
    metrics: dict[str, dict[str, float]] = {
        name: json.loads(path.read_bytes())["validation"] for name, path in files.items()
    }
    winner = choose_winner(metrics, params.metric)
    atomic.write_json(paths.choice(task), {"architecture": winner, "metric": params.metric, "candidates": metrics})
    print(f"{task}: {winner} wins by {params.metric}: { {name: row[params.metric] for name, row in metrics.items()} }")


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
