"""Raw images -> pixels as the model sees them, by the code that serving uses, their rejections, and their census."""

import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from convoy.core.process import usable_cores
from convoy.data.census import Census, ImageFacts
from convoy.data.raw import RawItems
from convoy.data.splits import Division, digest
from convoy.kinds.image.near_duplicates import ImageSignatures, near_pairs
from convoy.kinds.image.preprocessing import ImagePreprocessing, ImagePreprocessor, decode
from convoy.kinds.kind import InputRejected
from convoy.sources.items import Rejection

BLOCK_IMAGES = 1_000  # images copied at once


@dataclass(frozen=True)
class ConvertedImages:
    """The result of `convert`: `rows` (n,) int64 are the raw images that could be read."""

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]  # (n, size, size, channels), a nameless file mapped into memory
    keys: list[bytes]  # digests of the pixels
    sizes_px: NDArray[np.int64]  # (n, 2) width and height, before
    modes: list[str]  # Pillow's, before
    brightness: NDArray[np.float64]  # mean of the pixels, 0 to 255
    rejections: list[Rejection]


def take_census(raw: RawItems, converted: ConvertedImages, division: Division) -> Census:
    """The census of the images that could be read, near-duplicates included, and the rejections of the others."""
    signatures = ImageSignatures()
    for start in tqdm(
        range(0, len(converted.pixels), BLOCK_IMAGES), "image: comparing", unit=f" x {BLOCK_IMAGES}", mininterval=1
    ):
        signatures.add(converted.pixels[start : start + BLOCK_IMAGES])
    split_of = division.split_of(len(converted.rows))
    return Census(
        names=[raw.name(row) for row in converted.rows.tolist()],
        labels=raw.label_of[converted.rows],
        label_names=raw.labels,
        keys=converted.keys,
        splits=dict(division.rows.items()),
        dropped=division.dropped,
        copies=division.copies,
        rejections=[*raw.rejections, *converted.rejections],
        near=near_pairs(signatures, split_of),
        facts=ImageFacts(
            widths=converted.sizes_px[:, 0],
            heights=converted.sizes_px[:, 1],
            modes=converted.modes,
            brightness=converted.brightness,
            size_px=converted.pixels.shape[1],
        ),
    )


@dataclass(frozen=True)
class _ConvertedImage:
    pixels: NDArray[np.uint8]
    size_px: tuple[int, int]
    mode: str


def convert(raw: RawItems, contract: ImagePreprocessing, scratch: Path) -> ConvertedImages:
    """Decode, convert and fit all images, on all cores; pixels go to a file in the folder `scratch`, not to memory."""
    preprocessor = ImagePreprocessor(contract)
    pixels = _map_new_file((len(raw), contract.size_px, contract.size_px, contract.channels), scratch)
    rows: list[int] = []
    keys: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    modes: list[str] = []
    brightness: list[float] = []
    rejections: list[Rejection] = []
    progress = tqdm(_convert_all(raw, preprocessor), "image: converting", len(raw), unit="", mininterval=1)
    for row, outcome in enumerate(progress):
        if isinstance(outcome, InputRejected):
            rejections.append(Rejection(raw.name(row), outcome.code, outcome.message))
            continue
        pixels[len(rows)] = outcome.pixels
        rows.append(row)
        keys.append(digest(outcome.pixels.tobytes()))
        sizes.append(outcome.size_px)
        modes.append(outcome.mode)
        brightness.append(float(outcome.pixels.mean()))
    return ConvertedImages(
        np.array(rows, dtype=np.int64),
        pixels[: len(rows)],
        keys,
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        modes,
        np.array(brightness),
        rejections,
    )


def gather(pixels: NDArray[np.uint8], rows: NDArray[np.int64], scratch: Path) -> NDArray[np.uint8]:
    """These rows in this order, again as a nameless file mapped into memory."""
    gathered = _map_new_file((len(rows), *pixels.shape[1:]), scratch)
    for start in range(0, len(rows), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        gathered[block] = pixels[rows[block]]
    return gathered


def _convert_all(raw: RawItems, preprocessor: ImagePreprocessor) -> Iterator[_ConvertedImage | InputRejected]:
    def convert_image(encoded: bytes | str) -> _ConvertedImage | InputRejected:
        assert isinstance(encoded, bytes)
        try:
            image = decode(encoded, preprocessor.contract.max_pixels)
            return _ConvertedImage(preprocessor.convert(image).array, image.size, image.mode)
        except InputRejected as rejection:
            return rejection

    with ThreadPoolExecutor(usable_cores()) as pool:
        for encoded in raw.contents():
            yield from pool.map(convert_image, encoded)


def _map_new_file(shape: tuple[int, ...], folder: Path) -> NDArray[np.uint8]:
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
