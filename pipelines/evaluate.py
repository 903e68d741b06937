"""The bundle, through the predictor that serves, on the test split, which baselines alone reads too. Argument: task."""

import sys

from pydantic import Field

from convoy import stage
from convoy.building.report import report_on
from convoy.layout import DataKind
from convoy.params import Section, read_section


class Params(Section):
    """The section evaluate of params.yaml."""

    max_probability_difference: float = Field(gt=0)


def main(task: DataKind) -> None:
    """Judge the bundle as it will be served, and every candidate beside it."""
    report_on(task, read_section(Params, "evaluate").max_probability_difference)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
