"""What was found in prepared data, as one structure that is the same JSON for the same content."""

from pydantic import BaseModel, ConfigDict

from convoy.data.content import ImageFindings, TextFindings


class Finding(BaseModel):
    """A part of the findings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(Finding):
    """One item: its place in the census, its file or row, its label, and its split, None where it was dropped."""

    index: int
    name: str
    label: str
    split: str | None


class Rejection(Finding):
    name: str
    code: str
    reason: str


class Rejections(Finding):
    """What could not be used; the share is of all inputs."""

    items: int
    share: float
    codes: dict[str, int]
    examples: tuple[Rejection, ...]


class Groups(Finding):
    """Items of exactly the same content; the share is of all items."""

    groups: int
    items: int
    share: float
    examples: tuple[tuple[Item, ...], ...]


class NearExample(Finding):
    first: Item
    second: Item
    distance: float


class Leak(Finding):
    """Items of a held-out split that have a near-duplicate in train; the share is of the split."""

    items: int
    share: float


class Nearness(Finding):
    """Near-duplicates over splits; what `with_more` and `cut_short` count is said at NearPairs."""

    method: str
    pairs: int
    pairs_with_other_label: int
    pairs_between: dict[str, int]
    leaked: dict[str, Leak]
    with_more: int
    cut_short: int
    examples: tuple[NearExample, ...]
    leak_examples: dict[str, tuple[NearExample, ...]]


class Balance(Finding):
    """Labels of the items kept: largest count over smallest, None where a label has no item; and who lacks in which
    split."""

    largest: int
    smallest: int
    ratio: float | None
    missing: dict[str, tuple[str, ...]]


class Order(Finding):
    """How often the label changes from one item to the next, and how often it would where chance had ordered them.

    Less than half of that is called sorted: a training that takes the items as they come would see one label at a time.
    """

    changes: int
    expected: float
    is_sorted: bool


class Findings(Finding):
    """All that was found.

    `counts` are split -> label -> items, `order` is the source's and that of each split; `ignored` was never meant to
    be an item, by its code.
    """

    items: int
    counts: dict[str, dict[str, int]]
    dropped: dict[str, int]
    rejected: Rejections
    ignored: dict[str, int]
    duplicates: Groups
    conflicting: Groups
    near: Nearness
    balance: Balance
    order: dict[str, Order]
    content: ImageFindings | TextFindings
    samples: dict[str, tuple[Item, ...]]

    @property
    def labels(self) -> list[str]:
        """All labels, in their order."""
        return list(next(iter(self.counts.values())))

    def items_to_show(self) -> list[int]:
        """The census's indices of all items that the page shows: samples and near-duplicates."""
        shown = [item.index for items in self.samples.values() for item in items]
        shown += [item.index for pair in self.near.examples for item in (pair.first, pair.second)]
        return sorted(set(shown))
