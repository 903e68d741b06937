"""Images as arrays, in IDX or NPZ files -> items, each a PNG like any other; read in blocks, never whole."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from convoy.sources.items import SPLIT_NAMES, Found, Item, SourceParams, SourceRefused

BLOCK = 1_000  # images
IMAGES, LABELS = ("images", "x", "data"), ("labels", "y", "targets")
# IDX: two zero bytes, the type, the number of dimensions, their sizes.
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4"}
_SPLITS = {**SPLIT_NAMES, "t10k": "test"}


def read(params: SourceParams) -> Found:
    """A folder of IDX files (`train-images-idx3-ubyte.gz`) or one .npz (`x_train`, `y_train`; `images`, `labels`).

    Images are (n, height, width) or (n, height, width, 1 or 3) uint8. Raises SourceRefused for all else.
    """
    parts = _npz_parts(params.path) if params.path.suffix.lower() == ".npz" else _idx_parts(params.path)
    if not parts:
        raise SourceRefused(f"{params.path}: no pair of images and labels; expected are IDX files or an .npz of arrays")
    for split, (images, labels) in sorted(parts.items()):
        yield from read_pair(params.path, images, labels, split if params.given_splits else "", split or "images")


def read_pair(path: Path, images: str, labels: str, split: str, name: str) -> Found:
    """The items of one array of images and one of labels; their names are `name:0` and so on."""
    with _opened(path, images) as (shape, pixels), _opened(path, labels) as (count, values):
        _require_images(f"{path}: {images}", shape, pixels)
        if count[:1] != shape[:1] or count[1:] not in ((), (1,)):
            raise SourceRefused(f"{path}: {labels} has the shape {count}, {images} {shape}; one label per image is due")
        for start in range(0, shape[0], BLOCK):
            block = slice(start, min(start + BLOCK, shape[0]))
            for offset, (image, label) in enumerate(zip(pixels(block), values(block), strict=True)):
                yield Item(f"{name}:{start + offset}", str(label.item()), split, encode_png(image))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """One image (height, width) or (height, width, 1 or 3) uint8 as PNG; quick rather than small."""
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[2:] == (1,) else pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


class _Blocks:
    """An array in a stream, read in blocks that follow each other."""

    def __init__(self, stream: IO[bytes], shape: tuple[int, ...], kind: "np.dtype[Any]", path: str) -> None:
        self.kind = kind
        self._stream, self._item, self._path = stream, shape[1:], path

    def __call__(self, block: slice) -> NDArray[Any]:
        count = block.stop - block.start
        size = count * int(np.prod(self._item, dtype=np.int64)) * self.kind.itemsize
        content = self._stream.read(size)
        if len(content) != size:
            raise SourceRefused(f"{self._path} ends too early, after {block.start} items and {len(content)} bytes")
        return np.frombuffer(content, self.kind).reshape(count, *self._item)


def _require_images(where: str, shape: tuple[int, ...], pixels: _Blocks) -> None:
    fits = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not fits or pixels.kind != np.uint8:
        raise SourceRefused(
            f"{where} is {pixels.kind} {shape}; "
            "expected are uint8 images (n, height, width) or (n, height, width, 1 or 3)"
        )


def _idx_parts(folder: Path) -> dict[str, tuple[str, str]]:
    files = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    parts = {}
    for name in files:
        prefix, found, _ = name.partition("-images")
        labels = [other for other in files if other.startswith(f"{prefix}-labels")]
        if found and len(labels) == 1:
            parts[_SPLITS.get(prefix.lower(), "")] = (name, labels[0])
    return parts


def _npz_parts(path: Path) -> dict[str, tuple[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceRefused(f"{path} cannot be read: {error}") from None
    parts = {}
    for name in names:
        words = name.lower().split("_")
        kind = next((word for word in words if word in IMAGES), None)
        if kind is None:
            continue
        pair = LABELS[IMAGES.index(kind)]
        partners = [other for other in names if other.lower().split("_") == [pair if w == kind else w for w in words]]
        split = next((_SPLITS[word] for word in words if word in _SPLITS), "")
        if partners:
            parts[split] = (name, partners[0])
    return parts


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[tuple[int, ...], _Blocks]]:
    where = f"{path}: {name}"
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
                yield _npy(stream, where)
            return
        opener = gzip.open if name.endswith(".gz") else open
        with opener(path / name, "rb") as stream:
            yield _idx(stream, where)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise SourceRefused(f"{where} is damaged: {error}") from None


def _npy(stream: Any, where: str) -> tuple[tuple[int, ...], _Blocks]:
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, kind = read_header(stream)
    except ValueError as error:
        raise SourceRefused(f"{where} is no array: {error}") from None
    if by_column or kind.hasobject or not shape:
        raise SourceRefused(f"{where} holds objects, or runs by columns, or is one number; save a plain array")
    return shape, _Blocks(stream, shape, kind, where)


def _idx(stream: Any, where: str) -> tuple[tuple[int, ...], _Blocks]:
    start = stream.read(4)
    sizes = stream.read(4 * start[3]) if len(start) == 4 else b""
    if start[:2] != b"\0\0" or start[2] not in _IDX_TYPES or not start[3] or len(sizes) != 4 * start[3]:
        raise SourceRefused(f"{where} is no IDX file")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    return shape, _Blocks(stream, shape, np.dtype(_IDX_TYPES[start[2]]), where)
