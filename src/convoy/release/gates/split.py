"""The prepared gate split of a task -> its rows as a user would send them, and what they differ in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.predictor import Model
from convoy.core.atomic import sha256_of
from convoy.kinds.registry import module


@dataclass(frozen=True)
class GateSplit:
    """Contents, the same as a user sends them (PNG bytes or texts), and labels (n,) as indices of `names`."""

    task: str
    contents: Sequence[Any]
    raw: Sequence[bytes | str]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    sha256: str  # of the file

    def spread(self, count: int) -> list[bytes | str]:
        """So many rows, or all where there are fewer, evenly spread over the split."""
        chosen = np.linspace(0, len(self.raw) - 1, min(count, len(self.raw))).astype(int)
        return [self.raw[row] for row in chosen]


def read_gate_split(task: str, kind: str, path: Path) -> GateSplit:
    """Read the split; images are packed again, without loss. Raises FileNotFoundError, which says what makes it."""
    split = module(kind, "items.prepared").read(path)
    raw = module(kind, "items.raw").as_sent(split.contents)
    return GateSplit(task, split.contents, raw, split.labels, split.names, sha256_of(path))


def kind_and_values(model: Model, gate: GateSplit) -> tuple[str, NDArray[Any]]:
    """What the stage evaluate also slices by, such as the brightness of images, and its value of each row."""
    sliced: tuple[str, NDArray[Any]]
    sliced = module(model.card.kind, "items.preprocessing").slice_by(model.preprocessor, gate.contents)
    return sliced
