"""The prepared gate split of a task -> its rows as a user would send them, and what they differ in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.predictor import Model
from convoy.core.atomic import sha256_of
from convoy.core.paths import Task
from convoy.core.png import QUICK, encode_png
from convoy.kinds.image.prepared import read_images
from convoy.kinds.text.prepared import read_texts
from convoy.kinds.text.preprocessing import TextPreprocessor


@dataclass(frozen=True)
class GateSplit:
    """Raw contents (PNG bytes or texts) and labels (n,) as indices of `names`; `sha256` is that of the file."""

    task: Task
    raw: Sequence[bytes | str]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    sha256: str

    def spread(self, count: int) -> list[bytes | str]:
        """So many rows, or all where there are fewer, evenly spread over the split."""
        chosen = np.linspace(0, len(self.raw) - 1, min(count, len(self.raw))).astype(int)
        return [self.raw[row] for row in chosen]


def read_gate_split(task: Task, path: Path) -> GateSplit:
    """Read the split; images are packed again, without loss. Raises FileNotFoundError, which says what makes it."""
    if task == "image":
        images = read_images(path)
        raw: Sequence[bytes | str] = [encode_png(pixels, QUICK) for pixels in images.images]
        labels, names = images.labels, images.names
    else:
        texts = read_texts(path)
        raw, labels, names = list(texts.texts), texts.labels, texts.names
    return GateSplit(task, raw, labels, names, sha256_of(path))


def kind_and_values(model: Model, gate: GateSplit, arrays: Sequence[NDArray[Any]]) -> tuple[str, NDArray[Any]]:
    """What the stage evaluate also slices by: brightness of images, length of texts before they are cut."""
    if isinstance(model.preprocessor, TextPreprocessor):
        encodings = model.preprocessor.tokenizer.encode_batch(list(gate.raw), add_special_tokens=False)
        return "length_tokens", np.array([len(encoding.ids) for encoding in encodings])
    return "brightness", np.array([array.mean() for array in arrays])
