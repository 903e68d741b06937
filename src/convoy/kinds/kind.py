"""What all kinds share: the error of an input that cannot be used, and near-duplicates in different splits."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
# An item that has as many neighbours in one split is known to leak; the rest would only make the list long: n * n
# entries where all items are alike.
PAIRS_PER_ITEM = 10


class InputRejected(ValueError):
    """An input that cannot be used: `code` is for programs, `message` for people; neither repeats the input."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NearPair(NamedTuple):
    """Two items by their index, `first` < `second`, and how far they are apart; 0 is equal to the search."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True)
class NearPairs:
    """The pairs that were found, each once, by index, and where the search ended early.

    `with_more` items have further neighbours than the PAIRS_PER_ITEM of a split that are listed; `cut_short` items had
    more candidates than are compared, so that a neighbour of theirs can be missing.
    """

    pairs: tuple[NearPair, ...]
    method: str
    with_more: int = 0
    cut_short: int = 0

    def renumbered(self, items: Indices) -> "NearPairs":
        """The same pairs where what was searched as number i is `items[i]` elsewhere."""
        pairs = ((int(items[pair.first]), int(items[pair.second]), pair.distance) for pair in self.pairs)
        return gather(pairs, self.method, self.with_more, self.cut_short)


def opposite_sides(split_of: Indices) -> Iterator[tuple[Indices, Indices]]:
    """(seekers, others) of every two splits, as indices of items; the seekers are those of the later split.

    Split 0 is train, so that every held-out item looks for itself in train. A negative split is none: left out.
    """
    splits = [np.flatnonzero(split_of == split) for split in np.unique(split_of[split_of >= 0])]
    for later, seekers in enumerate(splits):
        for others in splits[:later]:
            yield seekers, others


def gather(found: Iterable[tuple[int, int, float]], method: str, with_more: int, cut_short: int) -> NearPairs:
    """Put what was found into one order, whatever the order of the search."""
    pairs = sorted(NearPair(min(a, b), max(a, b), round(float(distance), 4)) for a, b, distance in found)
    return NearPairs(tuple(pairs), method, with_more, cut_short)
