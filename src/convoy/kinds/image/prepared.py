"""One Arrow file per split of uint8 images and their labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from convoy.kinds.arrow import decode_labels, encode_labels, read, write


@dataclass(frozen=True)
class ImageSplit:
    """Images (n, height, width, channels) uint8 and labels (n,) int64 as indices of `names`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]


def write_images(path: Path, split: ImageSplit) -> None:
    """Write one split of images as one chunk; the same content gives the same bytes."""
    images = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(split.images))
    write(path, {"image": images, "label": encode_labels(split.labels, split.names)})


def read_images(path: Path) -> ImageSplit:
    """Read one split of images, which stay in the file, mapped into memory."""
    table = read(path)
    labels, names = decode_labels(table)
    (images,) = table["image"].chunks  # combine_chunks would copy even one
    return ImageSplit(images.to_numpy_ndarray(), labels, names)
