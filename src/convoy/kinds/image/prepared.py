"""One Arrow file per split of uint8 images and their labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from convoy.kinds import arrow


@dataclass(frozen=True)
class Split:
    """Images (n, height, width, channels) uint8 and labels (n,) int64 as indices of `names`."""

    contents: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]


def write(path: Path, split: Split) -> None:
    """Write one split of images as one chunk; the same content gives the same bytes."""
    images = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(split.contents))
    arrow.write(path, {"image": images, "label": arrow.encode_labels(split.labels, split.names)})


def read(path: Path) -> Split:
    """Read one split of images, which stay in the file, mapped into memory."""
    table = arrow.read(path)
    labels, names = arrow.decode_labels(table)
    (images,) = table["image"].chunks  # combine_chunks would copy even one
    return Split(images.to_numpy_ndarray(), labels, names)
