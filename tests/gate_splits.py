"""Gate splits on which the tiny bundles are as good as can be, and honest: their labels are drawn by what these say."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import preflight_censuses
import tiny_bundles
from numpy.typing import NDArray

from convoy.bundles.predictor import Model
from convoy.data.findings import PreflightLimits
from convoy.data.inspection import inspect_census
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.image.items.prepared import write as write_images
from convoy.kinds.text.items.prepared import Split as TextSplit
from convoy.kinds.text.items.prepared import write as write_texts

ROWS = 200
NO_LIMITS = dict.fromkeys(PreflightLimits.model_fields)
MODELS = {
    "image": (tiny_bundles.IMAGE_CARD, {"model.onnx": tiny_bundles.image_model()}),
    "text": (
        tiny_bundles.TEXT_CARD,
        {"model.onnx": tiny_bundles.text_model(), "tokenizer.json": tiny_bundles.tokenizer_json()},
    ),
}


@cache
def content(task: str, rows: int = ROWS, labels: tuple[str, ...] | None = None) -> bytes:
    """The Arrow file of a task's gate split, with `labels` in the place of the tiny bundle's own."""
    with tempfile.TemporaryDirectory() as folder:
        return write(task, Path(folder, "gate.arrow"), rows, labels).read_bytes()


@cache
def findings(task: str) -> bytes:
    """A report of data in which nothing was found that any limit minds."""
    census = preflight_censuses.image_census(20) if task == "image" else preflight_censuses.planted_texts()
    return inspect_census(census).model_dump_json().encode()


def write(task: str, path: Path, rows: int = ROWS, names: tuple[str, ...] | None = None) -> Path:
    """Write a gate split of so many rows, the same each time."""
    generator = np.random.default_rng(1)
    card, files = MODELS[task]
    model = Model(card, files)
    if task == "image":
        shape = (rows, tiny_bundles.SIZE_PX, tiny_bundles.SIZE_PX, 1)
        images = np.broadcast_to(generator.integers(0, 256, (rows, 1, 1, 1), dtype=np.uint8), shape)
        labels = _drawn(model.probabilities(list(images)), generator)
        write_images(path, ImageSplit(images, labels, names or tiny_bundles.IMAGE_LABELS))
        return path
    words = list(tiny_bundles.WORDS)[2:]
    texts = [" ".join(generator.choice(words, generator.integers(1, 12))) for _ in range(rows)]
    tokens = [model.prepare(text).array.astype(np.int32) for text in texts]
    labels = _drawn(model.probabilities([each.astype(np.int64) for each in tokens]), generator)
    names = names or tiny_bundles.TEXT_LABELS
    write_texts(path, [TextSplit(texts, tokens, labels, names, len(tiny_bundles.WORDS), 0)])
    return path


def _drawn(probabilities: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.int64]:
    reached = probabilities.cumsum(axis=1) < generator.random((len(probabilities), 1))
    return np.minimum(reached.sum(axis=1), probabilities.shape[1] - 1).astype(np.int64)
