"""Evaluate a bundle on the test split, through the predictor of the server. Argument: task.

No other stage but baselines reads the test split.
"""

import sys

from convoy.core import stage, tasks
from convoy.core.params import read_section
from convoy.evaluation.report import EvaluateParams, write_report


def main(task: str) -> None:
    """Evaluate the bundle as it will be served, every candidate beside it, and its explanations."""
    entries = tasks.read()
    candidates = [candidate.name for candidate in entries.of_task(task)]
    write_report(entries.task(task), candidates, read_section(EvaluateParams, "evaluate"))


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
