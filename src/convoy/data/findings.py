"""The findings of a data report, the same JSON for the same content, and the limits of params.yaml for them."""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

from convoy.core.params import Section
from convoy.kinds.preparing.content import UNKNOWN_TOKENS, Content

EXAMPLES = 5
_Violation = tuple[str, float, str, str]  # key, limit, cause, remedy


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
    """Inputs that could not be used; the share is of all inputs."""

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
    """Near-duplicates over splits; NearPairs says what `with_more` and `cut_short` count."""

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
    """Labels of the items kept: largest count over smallest, None where a label has no item; `missing` has the labels
    that a split lacks."""

    largest: int
    smallest: int
    ratio: float | None
    missing: dict[str, tuple[str, ...]]


class Order(Finding):
    """How often the label changes from one item to the next, and how often it would in a random order.

    Less than half of that is called sorted: a training in the items' order would see one label at a time.
    """

    changes: int
    expected: float
    is_sorted: bool


class Findings(Finding):
    """All findings of a census.

    `counts` are split -> label -> items, `order` is the source's and that of each split; `ignored` counts inputs that
    were never meant to be items, by their code.
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
    content: Content
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


class PreflightLimits(Section):
    """The limits of one task's data; for a limit of null the report has the figure, and nothing is refused."""

    max_rejected_share: float | None = Field(ge=0, le=1)  # of all inputs
    max_duplicate_share: float | None = Field(ge=0, le=1)  # repeats, of all items
    max_conflicting_share: float | None = Field(ge=0, le=1)  # equal content with different labels, of all items
    max_leakage_share: float | None = Field(ge=0, le=1)  # near-duplicates of train, of each split held out
    max_imbalance: float | None = Field(ge=1)  # items of the largest label over those of the smallest
    min_per_label: int | None = Field(ge=1)  # items kept, in all splits together
    max_unknown_share: float | None = Field(ge=0, le=1)  # unknown tokens, of each split


def violations(findings: Findings, limits: PreflightLimits, section: str) -> list[str]:
    """A sentence per limit that is passed; `section` is the place of the limits, as data.fashion.prepare.limits."""
    violated = [
        *_check_rejected(findings, limits),
        *_check_equal(findings, limits),
        *_check_leaked(findings, limits),
        *_check_labels(findings, limits),
        *_check_unknown(findings, limits),
    ]
    return [f"{section}.{key} is {limit:g}, but {cause}; {remedy}" for key, limit, cause, remedy in violated]


def _check_rejected(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit, rejected = limits.max_rejected_share, findings.rejected
    if limit is not None and rejected.share > limit:
        cause = f"{rejected.items:,} inputs ({percent(rejected.share)} of all) could not be used, "
        cause += _list_examples(f"{rejection.name} ({rejection.reason})" for rejection in rejected.examples)
        yield "max_rejected_share", limit, cause, "mend or remove these, or raise the limit"


def _check_equal(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit, groups = limits.max_duplicate_share, findings.duplicates
    if limit is not None and groups.share > limit:
        cause = f"{groups.items:,} items ({percent(groups.share)} of all) repeat another one, "
        cause += _list_examples(_name_pair(group[0], group[1]) for group in groups.examples)
        yield "max_duplicate_share", limit, cause, "remove the repeats from the source, or raise the limit"
    limit, groups = limits.max_conflicting_share, findings.conflicting
    if limit is not None and groups.share > limit:
        cause = f"{groups.items:,} items ({percent(groups.share)} of all) have equal content and different labels, "
        cause += _list_examples(
            " and ".join(f"{item.name} ({item.label})" for item in group[:3]) for group in groups.examples
        )
        yield "max_conflicting_share", limit, cause, "decide for one label each, or raise the limit"


def _check_leaked(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit = limits.max_leakage_share
    for split, leak in findings.near.leaked.items():
        if limit is not None and leak.share > limit:
            cause = (
                f"{leak.items:,} items of the split {split} ({percent(leak.share)}) have a near-duplicate in train, "
            )
            cause += _list_examples(_name_pair(pair.first, pair.second) for pair in findings.near.leak_examples[split])
            remedy = "keep one of each pair, or raise the limit; figures of this split are too good by what it leaks"
            yield "max_leakage_share", limit, cause, remedy


def _check_labels(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    counts = sorted((sum(labels[name] for labels in findings.counts.values()), name) for name in findings.labels)
    described = [f"{name} ({count:,})" for count, name in counts]
    limit, balance = limits.max_imbalance, findings.balance
    if limit is not None and (balance.ratio is None or balance.ratio > limit):
        ratio = "infinite" if balance.ratio is None else f"{balance.ratio:g}"
        cause = (
            f"the largest label has {balance.largest:,} items and the smallest {balance.smallest:,}, a ratio that is "
        )
        cause += f"{ratio}, {_list_examples(described)}"
        yield "max_imbalance", limit, cause, "add items of the rare labels or join labels, or raise the limit"
    least = limits.min_per_label
    rare = [text for (count, _), text in zip(counts, described, strict=True) if least is not None and count < least]
    if least is not None and rare:
        cause = f"{len(rare):,} of {len(counts):,} labels have fewer items, {_list_examples(rare)}"
        yield "min_per_label", least, cause, "add items, join labels or leave the label out, or lower the limit"


def _check_unknown(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit = limits.max_unknown_share
    if limit is None:
        return
    unknown = (shares.of_split for shares in findings.content.shares if shares.key == UNKNOWN_TOKENS)
    shares_of_splits = next(unknown, {})
    exceeding = [f"{split} ({percent(share)})" for split, share in shares_of_splits.items() if share > limit]
    if exceeding:
        cause = f"the vocabulary does not know so many of the tokens, {_list_examples(exceeding)}"
        yield (
            "max_unknown_share",
            limit,
            cause,
            "raise vocabulary_size, look at the scripts in the report, or raise the limit",
        )


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.3g} %"


def _name_pair(first: Item, second: Item) -> str:
    return f"{first.name} and {second.name}"


def _list_examples(names: Iterable[str]) -> str:
    return "for example " + ", ".join([name for name, _ in zip(names, range(EXAMPLES), strict=False)])
