"""Images as arrays, in IDX or NPZ files -> items, each a PNG like any other; read in blocks, never whole."""

import gzip
import io
import math
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from convoy.core.png import QUICK, encode_png
from convoy.sources.archives import is_zip, most_unpacked, readable, refuse_hostile
from convoy.sources.items import (
    SPLIT_NAMES,
    Item,
    ItemsAndRejections,
    Rejection,
    SourceParams,
    SourceRefused,
    label_name,
)
from convoy.sources.trees import MAX_FILE_BYTES

BLOCK, BLOCK_BYTES = 1_000, 32_000_000  # the most images, and bytes, that are read at once
IMAGES, LABELS = ("images", "x", "data"), ("labels", "y", "targets")
# IDX: two zero bytes, the type, the number of dimensions, their sizes.
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4"}
_NPY_HEADER = 16_384  # bytes; numpy itself takes no more than 10,000
_SPLITS = {**SPLIT_NAMES, "t10k": "test"}
_REMEDY = "get it again"
# An array's name, whether it holds images (else labels), and the other words of its name.
_NamedArray = tuple[str, bool, tuple[str, ...]]


def read(params: SourceParams, kind: str = "image") -> ItemsAndRejections:
    """A folder of IDX files (`train-images-idx3-ubyte.gz`) or one .npz (`x_train`, `y_train`; `images`, `labels`).

    Images are (n, height, width) or (n, height, width, 1 or 3) uint8. Raises SourceRefused for all else, and where an
    array of images or labels would be left out.
    """
    arrays = _list_npz(params.path) if params.path.suffix.lower() == ".npz" else _list_folder(params.path)
    pairs = _pair_by_split(params.path, arrays)
    if not pairs:
        raise SourceRefused(f"{params.path}: no pair of images and labels; expected are IDX files or an .npz of arrays")
    for split, (images, labels) in sorted(pairs.items()):
        yield from read_pair(params.path, images, labels, split if params.given_splits else "", split or "images")


def read_pair(path: Path, images: str, labels: str, split: str, name: str) -> ItemsAndRejections:
    """The items of one array of images and one of labels; their names are `name:0` and so on."""
    with _open_blocks(path, images) as pixels, _open_blocks(path, labels) as values:
        _require_images(f"{path}: {images}", pixels)
        if values.shape[:1] != pixels.shape[:1] or values.shape[1:] not in ((), (1,)):
            raise SourceRefused(
                f"{path}: {labels} has the shape {values.shape}, {images} {pixels.shape}; one label per image is due"
            )
        if values.dtype.kind not in "biufSU":
            raise SourceRefused(f"{path}: {labels} is {values.dtype}; expected are names or numbers")
        step = max(1, min(BLOCK, BLOCK_BYTES // max(pixels.item_bytes, values.item_bytes)))
        for start in range(0, pixels.shape[0], step):
            block = slice(start, min(start + step, pixels.shape[0]))
            for offset, (image, label) in enumerate(zip(pixels.read(block), values.read(block), strict=True)):
                yield _to_item(f"{name}:{start + offset}", split, image, label_name(label.item()))
        pixels.require_end()
        values.require_end()


def _to_item(name: str, split: str, image: NDArray[np.uint8], label: str) -> Item | Rejection:
    if not label:
        return Rejection(name, "no_label", "no label in the array of labels")
    return Item(name, label, split, encode_png(image, QUICK))


class _Blocks:
    """An array in a stream, read in consecutive blocks. Raises SourceRefused where it has over `max_bytes` bytes."""

    def __init__(
        self, stream: IO[bytes], shape: tuple[int, ...], dtype: "np.dtype[Any]", where: str, max_bytes: int
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.item_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._stream, self._where = stream, where
        if min(shape) < 0 or not dtype.itemsize or self.item_bytes > MAX_FILE_BYTES:
            raise SourceRefused(
                f"{where} tells of {shape} items of {self.item_bytes} bytes each; at most {MAX_FILE_BYTES} are read"
            )
        if shape[0] * self.item_bytes > max_bytes:
            raise SourceRefused(
                f"{where} ends too early, or is a bomb: its header tells of {shape[0] * self.item_bytes} bytes, there "
                f"can be {max_bytes}; {_REMEDY}"
            )

    def read(self, block: slice) -> NDArray[Any]:
        """The next items, which `block` counts. Raises SourceRefused where there are too few."""
        count = block.stop - block.start
        with readable(self._where, _REMEDY):
            content = self._stream.read(count * self.item_bytes)
        if len(content) != count * self.item_bytes:
            raise SourceRefused(f"{self._where} ends too early, after {block.start} items and {len(content)} bytes")
        if self.dtype.kind == "U" and np.frombuffer(content, f"{self.dtype.str[0]}u4").max(initial=0) > sys.maxunicode:
            raise SourceRefused(f"{self._where} holds what is no character; {_REMEDY}")
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])

    def require_end(self) -> None:
        """Raise SourceRefused where something follows the last item; this read also checks a checksum."""
        with readable(self._where, _REMEDY):
            extra = self._stream.read(1)
        if extra:
            raise SourceRefused(f"{self._where} goes on after the {self.shape[0]} items of its header; {_REMEDY}")


def _require_images(where: str, pixels: _Blocks) -> None:
    shape = pixels.shape
    fits = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not fits or not all(shape[1:]) or pixels.dtype != np.uint8:
        raise SourceRefused(
            f"{where} is {pixels.dtype} {shape}; "
            "expected are uint8 images (n, height, width) or (n, height, width, 1 or 3)"
        )


def _list_folder(folder: Path) -> Iterator[_NamedArray]:
    files = sorted(file.name for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
    for name in files:
        for role in ("images", "labels"):
            prefix, marker, _ = name.partition(f"-{role}")
            if marker and not name.startswith("."):  # macOS puts a ._ file beside each
                yield name, role == "images", tuple(_split_words(prefix))


def _list_npz(path: Path) -> Iterator[_NamedArray]:
    if not (path.is_file() and is_zip(path)):
        raise SourceRefused(f"{path} cannot be read: it is missing, or no .npz; {_REMEDY}")
    with readable(path, _REMEDY):
        members = refuse_hostile(path)
    for member in members:
        words = _split_words(member.removesuffix(".npy"))
        role = next((word for word in words if word in IMAGES + LABELS), None)
        if role is not None and member.endswith(".npy"):
            words.remove(role)
            yield member.removesuffix(".npy"), role in IMAGES, tuple(words)


def _split_words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def _pair_by_split(path: Path, arrays: Iterable[_NamedArray]) -> dict[str, tuple[str, str]]:
    """Split -> the names of its images and of its labels; the names of a pair share all their other words.

    Raises SourceRefused where something has no partner, or more than one, or where two pairs are of one split.
    """
    groups: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for name, is_images, words in arrays:
        groups.setdefault(words, ([], []))[0 if is_images else 1].append(name)
    pairs: dict[str, tuple[str, str]] = {}
    for words, (images, labels) in groups.items():
        if len(images) != 1 or len(labels) != 1:
            raise SourceRefused(
                f"{path}: {', '.join(images) or 'nothing'} as images and {', '.join(labels) or 'nothing'} as labels; "
                "one of each is expected, alike in the rest of their names; add what is missing, or take one away"
            )
        split = next((_SPLITS[word] for word in words if word in _SPLITS), "")
        if split in pairs:
            raise SourceRefused(
                f"{path}: {pairs[split][0]} and {images[0]} are both images of the split {split!r}, told from their "
                "names; name another split in one of them, or take it away"
            )
        pairs[split] = (images[0], labels[0])
    return pairs


@contextmanager
def _open_blocks(path: Path, name: str) -> Iterator[_Blocks]:
    with ExitStack() as streams:
        with readable(f"{path}: {name}", _REMEDY):
            blocks = _open_array(streams, path, name)
        yield blocks


def _open_array(streams: ExitStack, path: Path, name: str) -> _Blocks:
    where = f"{path}: {name}"
    if path.suffix.lower() == ".npz":
        archive = streams.enter_context(zipfile.ZipFile(path))
        entry = archive.getinfo(f"{name}.npy")
        return _open_npy(streams.enter_context(archive.open(entry)), where, entry.file_size)
    file = path / name
    if name.endswith(".gz"):
        return _open_idx(streams.enter_context(gzip.open(file)), where, most_unpacked(file))
    return _open_idx(streams.enter_context(file.open("rb")), where, file.stat().st_size)


def _open_npy(stream: Any, where: str, max_bytes: int) -> _Blocks:
    start = io.BytesIO(stream.read(_NPY_HEADER))
    try:
        version = npy.read_magic(start)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, dtype = read_header(start)
    except Exception as error:  # numpy has Python parse the header, which fails in many ways
        raise SourceRefused(f"{where} is no array: {error}") from None
    if by_column or dtype.hasobject or not shape:
        raise SourceRefused(f"{where} holds objects, or runs by columns, or is one number; save a plain array")
    stream.seek(start.tell())
    return _Blocks(stream, shape, dtype, where, max_bytes - start.tell())


def _open_idx(stream: Any, where: str, max_bytes: int) -> _Blocks:
    start = stream.read(4)
    sizes = stream.read(4 * start[3]) if len(start) == 4 else b""
    if start[:2] != b"\0\0" or start[2] not in _IDX_TYPES or not start[3] or len(sizes) != 4 * start[3]:
        raise SourceRefused(f"{where} is no IDX file")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    return _Blocks(stream, shape, np.dtype(_IDX_TYPES[start[2]]), where, max_bytes - 4 - len(sizes))
