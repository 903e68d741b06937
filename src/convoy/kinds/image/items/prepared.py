"""One Arrow file per split of uint8 images and their labels; larger images are kept as PNGs."""

import io
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from convoy.core import arrow, atomic
from convoy.core.png import encode_png

ENCODED_ABOVE_PX = 64  # a side; plain pixels are read without any work, a photo of 224 x 224 has 150 kB of them
BLOCK_IMAGES = 500  # of PNGs written at once


class EncodedImages:
    """Images (n, height, width, channels) as PNGs in a file mapped into memory; each is unpacked at its access."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column
        self.shape = (len(column), *(self[0].shape if len(column) else (0, 0, 0)))

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any]) -> NDArray[np.uint8]: ...
    def __getitem__(self, index: int | slice | NDArray[Any]) -> NDArray[np.uint8]:
        if isinstance(index, int | np.integer):
            return _decode_png(self._column[int(index)].as_py())
        rows = np.arange(len(self))[index]
        return np.stack([self[row] for row in rows.tolist()]) if len(rows) else np.empty((0, *self.shape[1:]), np.uint8)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (_decode_png(encoded) for chunk in self._column.chunks for encoded in chunk.to_pylist())


@dataclass(frozen=True)
class Split:
    """Images (n, height, width, channels) uint8 and labels (n,) int64 as indices of `names`."""

    contents: Any  # an array, or EncodedImages
    labels: NDArray[np.int64]
    names: tuple[str, ...]


def write(path: Path, split: Split) -> None:
    """Write one split of images, small ones as one chunk; the same content gives the same bytes."""
    labels = arrow.encode_labels(split.labels, split.names)
    if split.contents.shape[1] <= ENCODED_ABOVE_PX:
        images = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(split.contents))
        arrow.write(path, {"image": images, "label": labels})
        return
    schema = pa.schema([("image", pa.binary()), ("label", labels.type)])
    with atomic.new_file(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        for start in range(0, max(len(labels), 1), BLOCK_IMAGES):
            block = slice(start, start + BLOCK_IMAGES)
            encoded = [encode_png(pixels) for pixels in split.contents[block]]
            writer.write_batch(pa.record_batch([pa.array(encoded, pa.binary()), labels[block]], schema=schema))


def read(path: Path) -> Split:
    """Read one split of images, which stay in the file, mapped into memory."""
    table = arrow.read(path)
    labels, names = arrow.decode_labels(table)
    if pa.types.is_binary(table["image"].type):
        return Split(EncodedImages(table["image"]), labels, names)
    (images,) = table["image"].chunks  # combine_chunks would copy even one
    return Split(images.to_numpy_ndarray(), labels, names)


def map_new_file(shape: tuple[int, ...], folder: Path) -> NDArray[np.uint8]:
    """Zeros in a file without a name, mapped into memory; the file is gone when the process ends, however it ends.

    Raises OSError, which names the folder and the bytes, where the disk has no room for them.
    """
    if 0 in shape:
        return np.empty(shape, dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        if sys.platform == "linux":  # else a file with holes: where the disk fills, writing to the map is a SIGBUS
            needed = math.prod(shape)
            try:
                os.posix_fallocate(file.fileno(), 0, needed)
            except OSError as error:
                message = f"{error.strerror}, {needed:,} bytes are needed"
                raise OSError(error.errno, message, str(folder)) from None
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def _decode_png(encoded: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded), formats=("PNG",)) as image:
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)
