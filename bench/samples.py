"""The packaged tasks, which benchmarks are about, and some items of their prepared data, the same ones each time."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoy.core import paths
from convoy.core.paths import Split
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.image.items.prepared import read as read_images
from convoy.kinds.image.items.prepared import write as write_images
from convoy.kinds.text.items.prepared import Split as TextSplit
from convoy.kinds.text.items.prepared import read as read_texts
from convoy.kinds.text.items.prepared import write as write_texts

IMAGES, TEXTS = "fashion", "reviews"  # each the name of a data set, and of a task
STREAM = "reviews-stream"
SEED = 0


def some_images(path: Path, count: int) -> ImageSplit:
    """Some of a prepared split, drawn evenly."""
    split = read_images(path)
    rows = _some(len(split.labels), count)
    return ImageSplit(split.contents[rows], split.labels[rows], split.names)


def some_texts(path: Path, count: int) -> TextSplit:
    """Some of a prepared split, drawn evenly."""
    split = read_texts(path)
    rows = _some(len(split.labels), count)
    texts, tokens = ([column[row] for row in rows] for column in (split.contents, split.tokens))
    return TextSplit(texts, tokens, split.labels[rows], split.names, split.vocabulary, split.pad_id)


def write_some(data: str, source: Path, folder: Path, counts: dict[Split, int]) -> None:
    """So many items of each split of a data set that is prepared in `source`, with its contract, into `folder`."""
    contract = paths.CONTRACT.parent
    shutil.copytree(source / contract, folder / contract)
    for split, count in counts.items():
        name = paths.split_file(data, split).name
        if data == IMAGES:
            write_images(folder / name, some_images(source / name, count))
        else:
            write_texts(folder / name, [some_texts(source / name, count)])


def _some(total: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(SEED).permutation(total)[:count]
