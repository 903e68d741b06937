"""The winner's weights -> a calibrated, checked bundle: ONNX, explanation, contract, examples. Argument: task."""

import json
import sys
from typing import Any

from pydantic import Field, create_model

from convoy.bundles.bundle import Limits
from convoy.core import paths, stage
from convoy.core.params import Section, read_section
from convoy.core.paths import Architecture, DataKind
from convoy.export.build import BundleParams, build_bundle
from convoy.export.to_onnx import Explaining
from convoy.kinds.registry import KINDS, module

# How the models explain their predictions, as each kind can.
_EXPLANATIONS: Any = {kind: (module(kind, "explanation").Params, ...) for kind in KINDS}
Explanations: Any = create_model("Explanations", __base__=Section, **_EXPLANATIONS)


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
    method = getattr(params.explanation, task)
    explaining = Explaining(method, params.max_contribution_difference)
    build_bundle(task, architecture, preprocessing, params.limits[task], params, explaining=explaining)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
