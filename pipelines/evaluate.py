"""Evaluate the bundle on the test split, through the predictor of the server. Argument: task.

No other stage but baselines reads the test split.
"""

import sys
from typing import Any

from numpy.typing import NDArray
from pydantic import Field

from convoy.bundles.explanation import open_explainer
from convoy.bundles.predictor import Predictor
from convoy.core import atomic, paths, stage
from convoy.core.params import Section, read_section
from convoy.core.paths import DataKind
from convoy.evaluation.faithfulness import DeletionParams, measure_deletion
from convoy.evaluation.report import write_report


class Params(Section):
    """The section evaluate of params.yaml."""

    max_probability_difference: float = Field(gt=0)
    deletion: DeletionParams


def main(task: DataKind) -> None:
    """Evaluate the bundle as it will be served, every candidate beside it, and its explanations."""
    params = read_section(Params, "evaluate")

    def report_faithfulness(predictor: Predictor, arrays: list[NDArray[Any]]) -> None:
        """Measure whether the predictions depend on the parts that the explanations mark."""
        explainer = open_explainer(predictor, threads=2)
        assert explainer is not None, "export writes no bundle without explanation.onnx"
        report = measure_deletion(explainer, arrays, params.deletion)
        atomic.write_json(paths.reports(task) / "explanation.json", report)
        print(f"{task}: deletion {report}", flush=True)

    write_report(task, params.max_probability_difference, report_faithfulness)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
