"""The winner's weights -> a calibrated, proven bundle: ONNX, contract and examples. Argument: task."""

import json
import sys

from convoy import layout, stage
from convoy.building.bundle import BundleParams, build_bundle
from convoy.bundle import Limits
from convoy.layout import Architecture, DataKind
from convoy.params import read_section


class Params(BundleParams):
    """The section export of params.yaml."""

    limits: dict[DataKind, Limits]


def main(task: DataKind) -> None:
    """Export the candidate that was chosen."""
    params = read_section(Params, "export")
    architecture: Architecture = json.loads(layout.choice(task).read_bytes())["architecture"]
    preprocessing = json.loads(layout.contract(task).read_bytes())
    build_bundle(task, architecture, preprocessing, params.limits[task], params)


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
