"""The winner's weights -> a calibrated, checked bundle: ONNX, explanation, contract, examples. Argument: task."""

import sys

from convoy.core import stage, tasks
from convoy.core.params import read_section
from convoy.export.build import ExportParams, TaskParams, build_bundle


def main(task: str) -> None:
    """Export the candidate that was chosen."""
    entry = tasks.read().task(task)
    build_bundle(entry, read_section(TaskParams, "tasks", task), read_section(ExportParams, "export"))


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
