"""A census: what preparation records of each item, whatever its kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from convoy.data.raw import RawItems
from convoy.data.splits import Division, split_of
from convoy.kinds.preparing.content import Content, Indices
from convoy.kinds.preparing.kind import NearPairs, Preparation
from convoy.sources.items import Rejection


@dataclass(frozen=True)
class Census:
    """Items (n) in the order of the source, kept or dropped.

    `names` are files, or rows as `table.csv:12`. `keys` are equal for exactly equal content.
    `splits` has the items of each split by index, train first, in the order in which it was written. `copies` has
    the items that are left out because another has their content, with the reason. `near` has the same indices.
    Raises ValueError where a field lacks an entry per item.
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
    content: Content

    def __post_init__(self) -> None:
        n = len(self.labels)
        lengths = {"names": len(self.names), "keys": len(self.keys)}
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise ValueError(f"the census has {n} labels, but {wrong}: each must have one entry per item")

    @cached_property
    def split_of(self) -> Indices:
        """The number of each item's split (n,): 0 is train, -1 is dropped."""
        return split_of(self.splits, len(self.labels))


def take_census(raw: RawItems, prepared: Preparation, rejected: Sequence[Rejection], division: Division) -> Census:
    """The census of the items that could be used, near-duplicates included; after all splits were written."""
    labels = raw.label_of[prepared.rows]
    splits: dict[str, Indices] = dict(division.rows.items())
    return Census(
        names=[raw.name(row) for row in prepared.rows.tolist()],
        labels=labels,
        label_names=raw.labels,
        keys=prepared.keys,
        splits=splits,
        dropped=division.dropped,
        copies=division.copies,
        rejections=[*raw.rejections, *rejected],
        near=prepared.near_pairs(split_of(splits, len(labels))),
        content=prepared.facts.content(splits, labels, raw.labels),
    )
