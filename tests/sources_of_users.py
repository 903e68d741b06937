"""Data as users bring it, small: folders, tables, archives; and the params that lead to them."""

import gzip
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from image_files import encode
from PIL import Image
from pyarrow import parquet

from convoy.sources.items import SourceParams, TableParams

TEXTS = {"good": "a fine film , well told", "bad": "two hours I want back !"}


def params(path: Path, **changes: Any) -> SourceParams:
    table = {"file": None, "content": "text", "label": "label", "split": "split", "encoding": "utf-8"}
    table |= changes.pop("table", {})
    rest = {"source": "folder", "given_splits": True, "labels": None, **changes}
    return SourceParams(path=path, table=TableParams(**table), **rest)


def png(seed: int = 0, size: tuple[int, int] = (9, 7), mode: str = "RGB") -> bytes:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return encode(Image.fromarray(pixels, mode))


def lay(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def idx(content: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">HBB{content.ndim}I", 0, 8, content.ndim, *content.shape) + content.tobytes())


def folder_of_texts(root: Path, count: int = 10, above: str = "") -> Path:
    files = {
        f"{above}{label}/{number}.txt": f"{text} {number}".encode()
        for label, text in TEXTS.items()
        for number in range(count)
    }
    return lay(root, files)


def folder_of_images(root: Path, counts: Mapping[str, int], **how: Any) -> Path:
    return lay(root, {f"{name}/{n}.png": png(n, **how) for name, count in counts.items() for n in range(count)})


def rows(text: str, label: str, count: int = 300) -> list[dict[str, str]]:
    """A table that is sorted by its labels, as many are."""
    found = [(name, f"{told} {n}") for name, told in TEXTS.items() for n in range(count)]
    return [{"id": str(n), label: name, text: told} for n, (name, told) in enumerate(found)]


def write_table(path: Path, content: list[dict[str, str]]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(content), path)
        case suffix:
            mark = {".csv": ",", ".tsv": "\t"}[suffix]
            cells = [list(content[0]), *(row.values() for row in content)]
            path.write_text("".join(mark.join(f'"{cell}"' for cell in row) + "\n" for row in cells))
    return path


def news(path: Path, **more: tuple[str, ...]) -> Path:
    """A table as that of Reuters R8, without a column called label, and columns more, whose cells repeat themselves."""
    topics = ("acquisition", "earnings", "crude")
    content = [
        {"topic": topics[n % 3], "document": f"{topics[n % 3]} of {n} shares", "split": ("train", "test")[n % 5 == 0]}
        | {name: cells[n // 2 % len(cells)] for name, cells in more.items()}
        for n in range(150)
    ]
    return write_table(path, content)
