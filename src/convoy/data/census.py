"""All that preparation knows of its items: what the findings are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.kinds.near_duplicates import Indices, NearPairs
from convoy.sources.items import Rejection


@dataclass(frozen=True)
class ImageFacts:
    """Of each image (n,): how it came, and the mean of its prepared pixels, 0 to 255; `size_px` is their side."""

    widths: Indices
    heights: Indices
    modes: Sequence[str]
    brightness: NDArray[np.float64]
    size_px: int


@dataclass(frozen=True)
class TextFacts:
    """Of each text (n,): its characters, the tokens kept and how many of them are unknown, whether it was cut, and
    its letters per script (`count_scripts`)."""

    characters: Indices
    tokens: Indices
    unknown: Indices
    truncated: NDArray[np.bool_]
    scripts: Sequence[Mapping[str, int]]


@dataclass(frozen=True)
class Census:
    """Items (n) in the order of the source, kept or dropped.

    `names` are files, or rows as `table.csv:12`. `keys` are equal for exactly equal content (`splits.digest`).
    `splits` has the items of each split by index, train first, in the order in which it was written. `copies` has
    those that are in none since another has their content, with the reason. `near` counts the items as here. The
    facts of a dropped item may be anything: only those of items kept are used. Raises
    ValueError where something has not one entry per item.
    """

    names: Sequence[str]
    labels: Indices
    label_names: tuple[str, ...]
    keys: Sequence[bytes]
    splits: Mapping[str, Indices]
    dropped: Mapping[str, int]
    copies: Mapping[int, str]
    rejections: Sequence[Rejection]
    near: NearPairs
    facts: ImageFacts | TextFacts

    def __post_init__(self) -> None:
        n = len(self.labels)
        lengths = {"names": len(self.names), "keys": len(self.keys)}
        lengths |= {name: len(value) for name, value in vars(self.facts).items() if name != "size_px"}
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise ValueError(f"the census has {n} labels, but {wrong}: each must have one entry per item")

    @property
    def split_of(self) -> Indices:
        """The number of each item's split (n,), train is 0; -1 was dropped."""
        numbers = np.full(len(self.labels), -1, dtype=np.int64)
        for number, items in enumerate(self.splits.values()):
            numbers[items] = number
        return numbers


def readable(name: str) -> str:
    """A name that every file can hold: bytes that are no text, as a file name may have, are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
