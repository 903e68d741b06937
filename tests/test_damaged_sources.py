"""Whatever is flipped, cut or made up in a stranger's file costs a reason or the source, never a traceback."""

import gzip
import json
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sources_of_users import lay, params, png, zipped

from convoy.data import raw
from convoy.sources import arrays, folders, tables
from convoy.sources.items import ItemsAndRejections, SourceRefused

FILES = {f"set/{label}/{number}.png": png(number, (5, 4)) for label in ("cat", "dog") for number in range(3)}
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)


def zip_of_images(folder: Path) -> Path:
    return zipped(folder / "set.zip", FILES)


def tar_of_images(folder: Path, suffix: str, mode: str) -> Path:
    lay(folder / "files", FILES)
    with tarfile.open(folder / f"set{suffix}", mode) as archive:
        archive.add(folder / "files" / "set", "set")
    return folder / f"set{suffix}"


def npz(folder: Path, save: Callable[..., None]) -> Path:
    save(folder / "set.npz", x_train=PIXELS, y_train=np.array(["cat", "dog"] * 3))
    return folder / "set.npz"


def idx(folder: Path, suffix: str) -> Path:
    """The images; the labels beside them stay whole."""
    pack = gzip.compress if suffix else bytes
    images = struct.pack(">4B3I", 0, 0, 8, 3, *PIXELS.shape) + PIXELS.tobytes()
    lay(folder / "idx", {f"train-labels-idx1-ubyte{suffix}": pack(struct.pack(">4BI", 0, 0, 8, 1, 6) + b"\0\1" * 3)})
    return lay(folder / "idx", {f"train-images-idx3-ubyte{suffix}": pack(images)}) / f"train-images-idx3-ubyte{suffix}"


def of_arrays(path: Path) -> ItemsAndRejections:
    return arrays.read(params(path if path.suffix == ".npz" else path.parent))


def of_folders(path: Path) -> ItemsAndRejections:
    return folders.read(params(path), "image")


KINDS: dict[
    str, tuple[Callable[[Path], Path], Callable[[Path], ItemsAndRejections], bool]
] = {  # whether it has checksums
    "zip": (zip_of_images, of_folders, True),
    "tar": (lambda folder: tar_of_images(folder, ".tar", "w"), of_folders, False),
    "tar.gz": (lambda folder: tar_of_images(folder, ".tar.gz", "w:gz"), of_folders, True),
    "tar.xz": (lambda folder: tar_of_images(folder, ".tar.xz", "w:xz"), of_folders, True),
    "npz": (lambda folder: npz(folder, np.savez_compressed), of_arrays, True),
    "plain npz": (lambda folder: npz(folder, np.savez), of_arrays, True),
    "idx": (lambda folder: idx(folder, ""), of_arrays, False),
    "idx.gz": (lambda folder: idx(folder, ".gz"), of_arrays, True),
}


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """With one to three bits flipped, now and then cut short too."""
    content = bytearray(whole)
    for _ in range(draw.randint(1, 3)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content[: draw.randrange(len(content))] if draw.random() < 0.1 else content)


def contents(folder: Path) -> list[bytes | str]:
    return [one for batch in raw.RawItems(folder).contents() for one in batch]


def seeds(count: int, many: int) -> list[object]:
    return [
        pytest.param(range(count), id=f"{count} of them"),
        pytest.param(range(count, count + many), id=f"{many} of them", marks=pytest.mark.proof),
    ]


@pytest.mark.parametrize("numbers", seeds(60, 1_000))
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_are_refused_or_told_and_what_has_a_checksum_is_never_read_wrong(
    tmp_path: Path, kind: str, numbers: range
) -> None:
    make, read, has_checksums = KINDS[kind]
    path = make(tmp_path)
    raw.write(tmp_path / "whole", "photos", "image", read(path), None)
    whole, right = path.read_bytes(), contents(tmp_path / "whole")
    refused = 0
    for number in numbers:
        path.write_bytes(damaged(whole, random.Random(number)))
        try:
            raw.write(tmp_path / "raw", "photos", "image", read(path), None)
        except SourceRefused as error:
            refused += 1
            assert "\n" not in str(error).partition("\n  ")[0]
            continue
        found = raw.RawItems(tmp_path / "raw")
        assert len(found) + len(found.rejections) == len(right), number  # a zip's directory has no checksum for names
        assert not has_checksums or set(contents(tmp_path / "raw")) <= set(right), number
    assert refused > 3


ROWS = ['{"text": "fine", "label": "a"}\n', '{"text": "good", "label": "b"}\n', '{"text": "x", "label": 1.0}\n']
PIECES = [
    *ROWS,
    *'{}[],:"\\1 é\n\r\0\ufeff',
    '"text"',
    '"label"',
    '"a"',
    '"\\ud800"',
    '"\\u0000"',
    "-1e999",
    "NaN",
    "null",
]
PIECES += ["1" * 5_000, "[" * 3_000]


@pytest.mark.process
@pytest.mark.parametrize("numbers", seeds(150, 1_000))
def test_generated_lines_of_json_give_items_and_reasons_and_never_a_traceback(tmp_path: Path, numbers: range) -> None:
    path = tmp_path / "t.jsonl"
    written = rejected = refused = 0
    for number in numbers:
        draw = random.Random(number)
        row = {"text": draw.choice(["x", "\ud800", None, 3]), "label": draw.choice(["a", "\udfff", {}, 1e400])}
        content = "".join([json.dumps(row), "\n", *ROWS[: draw.randint(1, 2)], *draw.choices(PIECES, k=60)]).encode()
        start, end = draw.choice([b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]), draw.choice([b"", b"\xff", b"\xc3"])
        path.write_bytes(start + content + end)
        try:
            raw.write(tmp_path / "raw", "notes", "text", tables.read(params(path), "text"), None)
        except SourceRefused:
            refused += 1
            continue
        found = raw.RawItems(tmp_path / "raw")
        written, rejected = written + len(found), rejected + len(found.rejections)
    assert written > len(numbers) and rejected > len(numbers) and refused > len(numbers) / 10
