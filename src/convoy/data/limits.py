"""Findings against the limits of params.yaml -> what must not be, each as a sentence that says what to do."""

from collections.abc import Iterable, Iterator

from pydantic import Field

from convoy.core.params import Section
from convoy.data.content import TextFindings
from convoy.data.findings import Findings, Item

EXAMPLES = 5


class PreflightLimits(Section):
    """The limits of one task's data; what is null is only told in the report."""

    max_rejected_share: float | None = Field(ge=0, le=1)  # of all inputs
    max_duplicate_share: float | None = Field(ge=0, le=1)  # repeats, of all items
    max_conflicting_share: float | None = Field(ge=0, le=1)  # equal content with different labels, of all items
    max_leakage_share: float | None = Field(ge=0, le=1)  # near-duplicates of train, of each split held out
    max_imbalance: float | None = Field(ge=1)  # items of the largest label over those of the smallest
    min_per_label: int | None = Field(ge=1)  # items kept, in all splits together
    max_unknown_share: float | None = Field(ge=0, le=1)  # tokens that the vocabulary lacks, of each split; texts alone


def violations(findings: Findings, limits: PreflightLimits, section: str) -> list[str]:
    """A sentence per limit that is not kept; `section` is where the limits stand, as prepare_images.limits."""
    found = [
        *_rejected(findings, limits),
        *_equal(findings, limits),
        *_leaked(findings, limits),
        *_labels(findings, limits),
        *_unknown(findings, limits),
    ]
    return [f"{section}.{key} is {limit:g}, but {what}; {remedy}" for key, limit, what, remedy in found]


_Violation = tuple[str, float, str, str]  # key, limit, what was found, remedy


def _rejected(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit, rejected = limits.max_rejected_share, findings.rejected
    if limit is not None and rejected.share > limit:
        what = f"{rejected.items:,} inputs ({_share(rejected.share)} of all) could not be used, "
        what += _examples(f"{each.name} ({each.reason})" for each in rejected.examples)
        yield "max_rejected_share", limit, what, "mend or remove these, or raise the limit"


def _equal(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit, groups = limits.max_duplicate_share, findings.duplicates
    if limit is not None and groups.share > limit:
        what = f"{groups.items:,} items ({_share(groups.share)} of all) repeat another one, "
        what += _examples(_pair(group[0], group[1]) for group in groups.examples)
        yield "max_duplicate_share", limit, what, "remove the repeats from the source, or raise the limit"
    limit, groups = limits.max_conflicting_share, findings.conflicting
    if limit is not None and groups.share > limit:
        what = f"{groups.items:,} items ({_share(groups.share)} of all) have equal content and different labels, "
        what += _examples(
            " and ".join(f"{each.name} ({each.label})" for each in group[:3]) for group in groups.examples
        )
        yield "max_conflicting_share", limit, what, "decide for one label each, or raise the limit"


def _leaked(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit = limits.max_leakage_share
    for split, leak in findings.near.leaked.items():
        if limit is not None and leak.share > limit:
            what = f"{leak.items:,} items of the split {split} ({_share(leak.share)}) have a near-duplicate in train, "
            what += _examples(_pair(pair.first, pair.second) for pair in findings.near.leak_examples[split])
            remedy = "keep one of each pair, or raise the limit; figures of this split are too good by what it leaks"
            yield "max_leakage_share", limit, what, remedy


def _labels(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    counts = sorted((sum(each[name] for each in findings.counts.values()), name) for name in findings.labels)
    told = [f"{name} ({count:,})" for count, name in counts]
    limit, balance = limits.max_imbalance, findings.balance
    if limit is not None and (balance.ratio is None or balance.ratio > limit):
        ratio = "infinite" if balance.ratio is None else f"{balance.ratio:g}"
        what = (
            f"the largest label has {balance.largest:,} items and the smallest {balance.smallest:,}, a ratio that is "
        )
        what += f"{ratio}, {_examples(told)}"
        yield "max_imbalance", limit, what, "add items of the rare labels or join labels, or raise the limit"
    least = limits.min_per_label
    rare = [text for (count, _), text in zip(counts, told, strict=True) if least is not None and count < least]
    if least is not None and rare:
        what = f"{len(rare):,} of {len(counts):,} labels have fewer items, {_examples(rare)}"
        yield "min_per_label", least, what, "add items, join labels or leave the label out, or lower the limit"


def _unknown(findings: Findings, limits: PreflightLimits) -> Iterator[_Violation]:
    limit, content = limits.max_unknown_share, findings.content
    if limit is None or not isinstance(content, TextFindings):
        return
    over = [f"{split} ({_share(each)})" for split, each in content.unknown_share.items() if each > limit]
    if over:
        what = f"the vocabulary does not know so many of the tokens, {_examples(over)}"
        yield (
            "max_unknown_share",
            limit,
            what,
            "raise vocabulary_size, look at the scripts in the report, or raise the limit",
        )


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"


def _pair(one: Item, other: Item) -> str:
    return f"{one.name} and {other.name}"


def _examples(names: Iterable[str]) -> str:
    return "for example " + ", ".join([name for name, _ in zip(names, range(EXAMPLES), strict=False)])
