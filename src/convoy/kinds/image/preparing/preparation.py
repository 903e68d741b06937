"""Raw images -> pixels as the model sees them, by the code that serving uses; one Arrow file for each split."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator
from tqdm import tqdm

from convoy.core import atomic
from convoy.core.params import Section
from convoy.core.paths import CONTRACT
from convoy.core.process import usable_cores
from convoy.core.rejection import InputRejected
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.image.items.prepared import map_new_file
from convoy.kinds.image.items.prepared import write as write_images
from convoy.kinds.image.items.preprocessing import ImagePreprocessing, ImagePreprocessor, decode
from convoy.kinds.image.preparing.facts import Facts
from convoy.kinds.image.preparing.near_duplicates import ImageSignatures, near_pairs
from convoy.kinds.preparing.content import Indices
from convoy.kinds.preparing.kind import NearPairs, RawContents, digest

BLOCK_IMAGES = 1_000  # images copied at once


class Params(Section):
    """What the preparation of images is told besides how to divide them."""

    preprocessing: ImagePreprocessing

    @field_validator("preprocessing")
    @classmethod
    def _is_first(cls, contract: ImagePreprocessing) -> ImagePreprocessing:
        if contract.stored is not None:
            raise ValueError("`stored` is for the contract of a candidate; remove it")
        return contract


class Preparation:
    """All raw images that can be read, decoded and fitted on all cores.

    `rows` (n,) are their rows among the raw images, `keys` the digests of their pixels, `rejected` the rows of the
    others with the reason. Pixels (n, size, size, channels) uint8 are a nameless file in `folder`, mapped into memory.
    """

    def __init__(self, raw: RawContents, params: Params, folder: Path) -> None:
        contract = params.preprocessing
        self._contract, self._folder = contract, folder
        pixels = map_new_file((len(raw), contract.size_px, contract.size_px, contract.channels), folder)
        rows: list[int] = []
        sizes: list[tuple[int, int]] = []
        modes: list[str] = []
        brightness: list[float] = []
        self.keys: list[bytes] = []
        self.rejected: list[tuple[int, InputRejected]] = []
        progress = tqdm(_convert_all(raw, contract), "image: converting", len(raw), unit="", mininterval=1)
        for row, outcome in enumerate(progress):
            if isinstance(outcome, InputRejected):
                self.rejected.append((row, outcome))
                continue
            pixels[len(rows)] = outcome.pixels
            rows.append(row)
            self.keys.append(digest(outcome.pixels.tobytes()))
            sizes.append(outcome.size_px)
            modes.append(outcome.mode)
            brightness.append(float(outcome.pixels.mean()))
        self.rows: Indices = np.array(rows, dtype=np.int64)
        self.pixels = pixels[: len(rows)]
        widths, heights = np.array(sizes, dtype=np.int64).reshape(-1, 2).T
        self.facts = Facts(widths, heights, modes, np.array(brightness), contract.size_px)

    def write(self, splits: Mapping[str, Indices], labels: Indices, names: tuple[str, ...]) -> dict[str, object]:
        """Write each split, and the contract; `labels` (n,) are indices of `names`."""
        for name, items in splits.items():
            images = gather(self.pixels, items, self._folder)
            write_images(self._folder / f"{name}.arrow", ImageSplit(images, labels[items], names))
        atomic.write_json(self._folder / CONTRACT, self._contract.model_dump(mode="json", exclude_none=True))
        return {}

    def near_pairs(self, split_of: Indices) -> NearPairs:
        """Near-duplicates in different splits, `split_of` (n,) with train as 0 and -1 for none."""
        signatures = ImageSignatures()
        starts = range(0, len(self.pixels), BLOCK_IMAGES)
        for start in tqdm(starts, "image: comparing", unit=f" x {BLOCK_IMAGES}", mininterval=1):
            signatures.add(self.pixels[start : start + BLOCK_IMAGES])
        return near_pairs(signatures, split_of)

    def show(self, item: int) -> NDArray[np.uint8]:
        """The pixels of one image, (size, size, channels), as the report shows it."""
        pixels: NDArray[np.uint8] = self.pixels[item]
        return pixels


@dataclass(frozen=True)
class _ConvertedImage:
    pixels: NDArray[np.uint8]
    size_px: tuple[int, int]
    mode: str


def gather(pixels: NDArray[np.uint8], rows: NDArray[np.int64], scratch: Path) -> NDArray[np.uint8]:
    """These rows in this order, again as a nameless file mapped into memory."""
    gathered = map_new_file((len(rows), *pixels.shape[1:]), scratch)
    for start in range(0, len(rows), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        gathered[block] = pixels[rows[block]]
    return gathered


def _convert_all(raw: RawContents, contract: ImagePreprocessing) -> Iterator[_ConvertedImage | InputRejected]:
    preprocessor = ImagePreprocessor(contract)

    def convert_image(encoded: bytes | str) -> _ConvertedImage | InputRejected:
        assert isinstance(encoded, bytes)
        try:
            image = decode(encoded, contract.max_pixels)
            return _ConvertedImage(preprocessor.convert(image).array, image.size, image.mode)
        except InputRejected as rejection:
            return rejection

    with ThreadPoolExecutor(usable_cores()) as pool:
        for encoded in raw.contents():
            yield from pool.map(convert_image, encoded)
