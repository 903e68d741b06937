"""The files that the stages wrote -> all that was measured, to be asked by family and probe."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab import layout
from lab.layout import FAMILIES, READERS, RECURRENT, SIZED, Family, Kind, Reader
from lab.learning import measuring
from lab.learning.estimates import Estimate, estimate

LEAST_GRADIENT = 1e-30  # one of 0 has no logarithm
NAMES: dict[str, str] = {
    "cnn": "CNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn": "Elman RNN",
    "mlp": "feed-forward",
    "linear": "logistic regression",
    "cnn-near": "CNN, near",
    "cnn-far": "CNN, far",
    "cnn-max": "CNN, maximum",
}


@dataclass(frozen=True)
class Results:
    """What each stage wrote, by family or reader."""

    image: dict[Family, dict[str, Any]]
    text: dict[Family, dict[str, Any]]
    permuted: dict[Family, dict[str, Any]]
    sizes: dict[Family, dict[str, Any]]
    memory: dict[Reader, dict[str, Any]]

    @classmethod
    def read(cls) -> "Results":
        """All files; the stages that write them are dependencies of the report."""
        return cls(
            image={family: _read(layout.learnt("image", family)) for family in FAMILIES},
            text={family: _read(layout.learnt("text", family)) for family in FAMILIES},
            permuted={family: _read(layout.permuted(family)) for family in FAMILIES},
            sizes={family: _read(layout.sized(family)) for family in SIZED},
            memory={reader: _read(layout.remembered(reader)) for reader in READERS},
        )

    def of(self, kind: Kind) -> dict[Family, dict[str, Any]]:
        """What was learnt of images, or of texts."""
        found: dict[Family, dict[str, Any]] = getattr(self, kind)
        return found

    def accuracy(self, kind: Kind, family: Family) -> Estimate:
        """Of a family on the items as they are."""
        return Estimate.from_json(self.of(kind)[family]["accuracy"])

    def ahead(self, kind: Kind, family: Family, other: Family) -> Estimate:
        """How much more accurate a family is than another on the same items, seed by seed."""
        ours, theirs = (measuring.unpack(self.of(kind)[each]["accuracy"]) for each in (family, other))
        return estimate(ours.astype(float) - theirs)

    def lost_by_permuting(self, family: Family) -> Estimate:
        """Accuracy on images less that on the same images with permuted pixels."""
        intact, permuted = self.image[family]["accuracy"], self.permuted[family]["accuracy"]
        return estimate(measuring.unpack(intact).astype(float) - measuring.unpack(permuted))

    def best_recurrent(self, kind: Kind) -> Family:
        """The recurrent family of the highest accuracy."""
        return max(RECURRENT, key=lambda family: self.accuracy(kind, family).mean)

    def at(self, kind: Kind, family: Family, probe: str, x: float) -> Estimate:
        """What a probe found at x: the accuracy that is lost, or the effect."""
        found = self.of(kind)[family][probe]
        of_points = found["drop"] if "drop" in found else found["effect"]
        return Estimate.from_json(of_points[found["x"].index(x)])

    def sizes_of(self, family: Family) -> tuple[list[int], np.ndarray[Any, np.dtype[np.float64]]]:
        """Weights of each size, the smallest first, and accuracies (seeds, sizes); the full network is the last."""
        full = self.image[family]
        small = self.sizes[family]["sizes"]
        weights = [*(each["weights"] for each in small), full["cost"]["weights"]]
        rows = [*(each["per_seed"] for each in small), full["accuracy"]["per_seed"]]
        return weights, np.array(rows).T


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run `dvc repro lab/dvc.yaml`, which makes it")
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content
