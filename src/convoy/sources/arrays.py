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

BLOCK, BLOCK_BYTES = 1_000, 32_000_000  # images, and bytes, that are read at once at most
IMAGES, LABELS = ("images", "x", "data"), ("labels", "y", "targets")
# IDX: two zero bytes, the type, the number of dimensions, their sizes.
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4"}
_NPY_HEADER = 16_384  # bytes; numpy itself takes no more than 10,000
_SPLITS = {**SPLIT_NAMES, "t10k": "test"}
_REMEDY = "get it again"
# Of an array: its name, whether it holds images (else labels), and the other words of its name.
_Named = tuple[str, bool, tuple[str, ...]]


def read(params: SourceParams) -> ItemsAndRejections:
    """A folder of IDX files (`train-images-idx3-ubyte.gz`) or one .npz (`x_train`, `y_train`; `images`, `labels`).

    Images are (n, height, width) or (n, height, width, 1 or 3) uint8. Raises SourceRefused for all else, and where an
    array of images or labels would be left out.
    """
    named = _in_npz(params.path) if params.path.suffix.lower() == ".npz" else _in_folder(params.path)
    parts = _pairs(params.path, named)
    if not parts:
        raise SourceRefused(f"{params.path}: no pair of images and labels; expected are IDX files or an .npz of arrays")
    for split, (images, labels) in sorted(parts.items()):
        yield from read_pair(params.path, images, labels, split if params.given_splits else "", split or "images")


def read_pair(path: Path, images: str, labels: str, split: str, name: str) -> ItemsAndRejections:
    """The items of one array of images and one of labels; their names are `name:0` and so on."""
    with _opened(path, images) as pixels, _opened(path, labels) as values:
        _require_images(f"{path}: {images}", pixels)
        if values.shape[:1] != pixels.shape[:1] or values.shape[1:] not in ((), (1,)):
            raise SourceRefused(
                f"{path}: {labels} has the shape {values.shape}, {images} {pixels.shape}; one label per image is due"
            )
        if values.kind.kind not in "biufSU":
            raise SourceRefused(f"{path}: {labels} is {values.kind}; expected are names or numbers")
        step = max(1, min(BLOCK, BLOCK_BYTES // max(pixels.item_bytes, values.item_bytes)))
        for start in range(0, pixels.shape[0], step):
            block = slice(start, min(start + step, pixels.shape[0]))
            for offset, (image, label) in enumerate(zip(pixels(block), values(block), strict=True)):
                yield _look(f"{name}:{start + offset}", split, image, label_name(label.item()))
        pixels.require_end()
        values.require_end()


def _look(name: str, split: str, image: NDArray[np.uint8], label: str) -> Item | Rejection:
    if not label:
        return Rejection(name, "no_label", "no label in the array of labels")
    return Item(name, label, split, encode_png(image, QUICK))


class _Blocks:
    """An array in a stream, read in blocks that follow each other; `room` is how many bytes it can have at most."""

    def __init__(self, stream: IO[bytes], shape: tuple[int, ...], kind: "np.dtype[Any]", where: str, room: int) -> None:
        self.shape, self.kind = shape, kind
        self.item_bytes = math.prod(shape[1:]) * kind.itemsize
        self._stream, self._where = stream, where
        if min(shape) < 0 or not kind.itemsize or self.item_bytes > MAX_FILE_BYTES:
            raise SourceRefused(
                f"{where} tells of {shape} items of {self.item_bytes} bytes each; at most {MAX_FILE_BYTES} are read"
            )
        if shape[0] * self.item_bytes > room:
            raise SourceRefused(
                f"{where} ends too early, or is a bomb: its header tells of {shape[0] * self.item_bytes} bytes, there "
                f"can be {room}; {_REMEDY}"
            )

    def __call__(self, block: slice) -> NDArray[Any]:
        count = block.stop - block.start
        with readable(self._where, _REMEDY):
            content = self._stream.read(count * self.item_bytes)
        if len(content) != count * self.item_bytes:
            raise SourceRefused(f"{self._where} ends too early, after {block.start} items and {len(content)} bytes")
        if self.kind.kind == "U" and np.frombuffer(content, f"{self.kind.str[0]}u4").max(initial=0) > sys.maxunicode:
            raise SourceRefused(f"{self._where} holds what is no character; {_REMEDY}")
        return np.frombuffer(content, self.kind).reshape(count, *self.shape[1:])

    def require_end(self) -> None:
        """Raise SourceRefused where something follows the last item; reading on is what checks a checksum."""
        with readable(self._where, _REMEDY):
            more = self._stream.read(1)
        if more:
            raise SourceRefused(f"{self._where} goes on after the {self.shape[0]} items of its header; {_REMEDY}")


def _require_images(where: str, pixels: _Blocks) -> None:
    shape = pixels.shape
    fits = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not fits or not all(shape[1:]) or pixels.kind != np.uint8:
        raise SourceRefused(
            f"{where} is {pixels.kind} {shape}; "
            "expected are uint8 images (n, height, width) or (n, height, width, 1 or 3)"
        )


def _in_folder(folder: Path) -> Iterator[_Named]:
    files = sorted(file.name for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
    for name in files:
        for kind in ("images", "labels"):
            prefix, found, _ = name.partition(f"-{kind}")
            if found and not name.startswith("."):  # macOS puts a ._ file beside each
                yield name, kind == "images", tuple(_words(prefix))


def _in_npz(path: Path) -> Iterator[_Named]:
    if not (path.is_file() and is_zip(path)):
        raise SourceRefused(f"{path} cannot be read: it is missing, or no .npz; {_REMEDY}")
    with readable(path, _REMEDY):
        members = refuse_hostile(path)
    for member in members:
        words = _words(member.removesuffix(".npy"))
        kind = next((word for word in words if word in IMAGES + LABELS), None)
        if kind is not None and member.endswith(".npy"):
            words.remove(kind)
            yield member.removesuffix(".npy"), kind in IMAGES, tuple(words)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def _pairs(path: Path, named: Iterable[_Named]) -> dict[str, tuple[str, str]]:
    """By split the names of its images and of its labels; a pair is what has the other words of its names in common.

    Raises SourceRefused where something has no partner, or more than one, or where two pairs are of one split.
    """
    groups: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for name, is_images, words in named:
        groups.setdefault(words, ([], []))[0 if is_images else 1].append(name)
    parts: dict[str, tuple[str, str]] = {}
    for words, (images, labels) in groups.items():
        if len(images) != 1 or len(labels) != 1:
            raise SourceRefused(
                f"{path}: {', '.join(images) or 'nothing'} as images and {', '.join(labels) or 'nothing'} as labels; "
                "one of each is expected, alike in the rest of their names; add what is missing, or take one away"
            )
        split = next((_SPLITS[word] for word in words if word in _SPLITS), "")
        if split in parts:
            raise SourceRefused(
                f"{path}: {parts[split][0]} and {images[0]} are both images of the split {split!r}, told from their "
                "names; name another split in one of them, or take it away"
            )
        parts[split] = (images[0], labels[0])
    return parts


@contextmanager
def _opened(path: Path, name: str) -> Iterator[_Blocks]:
    with ExitStack() as streams:
        with readable(f"{path}: {name}", _REMEDY):
            blocks = _open(streams, path, name)
        yield blocks


def _open(streams: ExitStack, path: Path, name: str) -> _Blocks:
    where = f"{path}: {name}"
    if path.suffix.lower() == ".npz":
        archive = streams.enter_context(zipfile.ZipFile(path))
        entry = archive.getinfo(f"{name}.npy")
        return _npy(streams.enter_context(archive.open(entry)), where, entry.file_size)
    file = path / name
    if name.endswith(".gz"):
        return _idx(streams.enter_context(gzip.open(file)), where, most_unpacked(file))
    return _idx(streams.enter_context(file.open("rb")), where, file.stat().st_size)


def _npy(stream: Any, where: str, room: int) -> _Blocks:
    start = io.BytesIO(stream.read(_NPY_HEADER))
    try:
        version = npy.read_magic(start)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, kind = read_header(start)
    except Exception as error:  # numpy has Python parse the header, which fails in many ways
        raise SourceRefused(f"{where} is no array: {error}") from None
    if by_column or kind.hasobject or not shape:
        raise SourceRefused(f"{where} holds objects, or runs by columns, or is one number; save a plain array")
    stream.seek(start.tell())
    return _Blocks(stream, shape, kind, where, room - start.tell())


def _idx(stream: Any, where: str, room: int) -> _Blocks:
    start = stream.read(4)
    sizes = stream.read(4 * start[3]) if len(start) == 4 else b""
    if start[:2] != b"\0\0" or start[2] not in _IDX_TYPES or not start[3] or len(sizes) != 4 * start[3]:
        raise SourceRefused(f"{where} is no IDX file")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    return _Blocks(stream, shape, np.dtype(_IDX_TYPES[start[2]]), where, room - 4 - len(sizes))
