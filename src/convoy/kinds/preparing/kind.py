"""What every kind has: how its raw items are prepared, and near-duplicates."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convoy.core.rejection import InputRejected
from convoy.kinds.preparing.content import Content, Indices

# An item with this many neighbours in one split leaks. More would only make the list longer: n * n entries where
# all items are alike.
PAIRS_PER_ITEM = 10


class NearPair(NamedTuple):
    """Two items by their index, `first` < `second`, and their distance; at 0 the search cannot tell them apart."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True)
class NearPairs:
    """The near pairs, each once, by index, and how many items were not searched to the end.

    `with_more` items have further neighbours than the PAIRS_PER_ITEM of a split that are listed; `cut_short` items had
    more candidates than are compared, so that a neighbour of theirs can be missing.
    """

    pairs: tuple[NearPair, ...]
    method: str
    with_more: int = 0
    cut_short: int = 0

    def renumbered(self, items: Indices) -> "NearPairs":
        """The same pairs, with the index i of each searched item replaced by `items[i]`."""
        pairs = ((int(items[pair.first]), int(items[pair.second]), pair.distance) for pair in self.pairs)
        return collect_pairs(pairs, self.method, self.with_more, self.cut_short)


def split_pairs(split_of: Indices) -> Iterator[tuple[Indices, Indices]]:
    """(queries, references) of every two splits, as indices of items; the queries are the items of the later split.

    Split 0 is train, so that every held-out item is searched for in train. Items of a negative split are left out.
    """
    splits = [np.flatnonzero(split_of == split) for split in np.unique(split_of[split_of >= 0])]
    for later, queries in enumerate(splits):
        for references in splits[:later]:
            yield queries, references


def collect_pairs(pairs: Iterable[tuple[int, int, float]], method: str, with_more: int, cut_short: int) -> NearPairs:
    """Sort the pairs, so that the result does not depend on the order of the search."""
    ordered = sorted(
        NearPair(min(first, second), max(first, second), round(float(distance), 4)) for first, second, distance in pairs
    )
    return NearPairs(tuple(ordered), method, with_more, cut_short)


class RawContents(Protocol):
    """The raw items of a data set: encoded images, or texts."""

    def __len__(self) -> int: ...

    def content(self, row: int) -> bytes | str:
        """One of them."""

    def contents(self) -> Iterator[Sequence[bytes | str]]:
        """All of them in their order, some at a time."""


class Facts(Protocol):
    """What was recorded of each item (n,)."""

    def content(self, splits: Mapping[str, Indices], labels: Indices, names: Sequence[str]) -> Content:
        """The figures of the items in the splits; `labels` (n,) are indices of `names`."""


class Preparation(Protocol):
    """The class `Preparation` of a kind's module `preparation`: made of raw contents, params and a folder.

    `rows` (n,) are the raw rows that can be used, `keys` (n,) are equal for exactly equal content, `rejected` has all
    other rows with the reason. `facts` are complete after `write`.
    """

    rows: Indices
    keys: list[bytes]
    rejected: list[tuple[int, InputRejected]]
    facts: Facts

    def write(self, splits: Mapping[str, Indices], labels: Indices, names: tuple[str, ...]) -> dict[str, object]:
        """Write each split as an Arrow file, and the contract; gives figures for data.json."""

    def near_pairs(self, split_of: Indices) -> NearPairs:
        """Near-duplicates in different splits, `split_of` (n,) with train as 0 and -1 for none."""

    def show(self, item: int) -> NDArray[np.uint8] | str:
        """The pixels or the text of an item, as the report shows it."""


def digest(content: bytes) -> bytes:
    """Equal for items with exactly the same content."""
    return hashlib.blake2b(content, digest_size=16).digest()
