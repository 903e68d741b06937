"""Data as users bring it, small: folders, tables, archives; and the params that lead to them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from image_files import encode
from PIL import Image

from convoy.sources.items import SourceParams, TableParams


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
