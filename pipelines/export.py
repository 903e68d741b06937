"""The winner's weights -> a calibrated, checked bundle: ONNX, explanation, contract, examples. Argument: task."""

import json
import sys

from pydantic import Field

from convoy.bundles.bundle import Limits, Occlusion, Reading
from convoy.core import paths, stage
from convoy.core.params import Section, read_section
from convoy.core.paths import Architecture, DataKind
from convoy.export.build import BundleParams, build_bundle
from convoy.export.to_onnx import Explaining


class Explanations(Section):
    """How the models explain their predictions."""

    image: Occlusion
    text: Reading


class Params(BundleParams):
    """The section export of params.yaml."""

    max_contribution_difference: float = Field(gt=0)
    limits: dict[DataKind, Limits]
    explanation: Explanations


def main(task: DataKind) -> None:
    """Export the candidate that was chosen, and its explanation."""
    params = read_section(Params, "export")
    architecture: Architecture = json.loads(paths.choice(task).read_bytes())["architecture"]
    preprocessing = json.loads(paths.contract(task).read_bytes())
    method: Occlusion | Reading = params.explanation.image if task == "image" else params.explanation.text
    explaining = Explaining(method, params.max_contribution_difference)
    build_bundle(task, architecture, preprocessing, params.limits[task], params, explaining=explaining)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
