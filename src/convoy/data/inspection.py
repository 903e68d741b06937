"""A census -> its findings. It counts and compares; the limits are checked in convoy.data.findings."""

from collections import Counter

import numpy as np

from convoy.data.census import Census
from convoy.data.findings import (
    Balance,
    Findings,
    Groups,
    Item,
    Leak,
    NearExample,
    Nearness,
    Order,
    Rejection,
    Rejections,
)
from convoy.kinds.preparing.content import Indices, readable
from convoy.kinds.preparing.kind import NearPair

EXAMPLES = 20  # of each kind; the page and the errors show some of them
LEAK_EXAMPLES = 5  # of each split
SAMPLES_PER_LABEL, LABELS_WITH_SAMPLES = 8, 20


def inspect_census(census: Census) -> Findings:
    """Count and compare the items; no limit is checked here."""
    names = tuple(map(readable, census.label_names))
    counts = {
        split: dict(zip(names, np.bincount(census.labels[items], minlength=len(names)).tolist(), strict=True))
        for split, items in census.splits.items()
    }
    duplicates, conflicting = _find_equal_groups(census)
    return Findings(
        items=len(census.labels),
        counts=counts,
        dropped=dict(census.dropped),
        rejected=_summarize_rejections(census),
        ignored=dict(sorted(Counter(rejection.code for rejection in census.rejections if rejection.ignored).items())),
        duplicates=duplicates,
        conflicting=conflicting,
        near=_summarize_near(census),
        balance=_measure_balance(counts, names),
        order={"source": _measure_order(census.labels)}
        | {split: _measure_order(census.labels[items]) for split, items in census.splits.items()},
        content=census.content,
        samples=_choose_samples(census),
    )


def _share(part: int | float, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _describe_item(census: Census, index: int) -> Item:
    split = int(census.split_of[index])
    return Item(
        index=index,
        name=readable(census.names[index]),
        label=readable(census.label_names[census.labels[index]]),
        split=list(census.splits)[split] if split >= 0 else None,
    )


def _summarize_rejections(census: Census) -> Rejections:
    rejections = [
        Rejection(name=readable(rejection.name), code=rejection.code, reason=readable(rejection.message))
        for rejection in census.rejections
        if not rejection.ignored
    ]
    codes = dict(sorted(Counter(rejection.code for rejection in rejections).items()))
    numbers: Counter[str] = Counter()
    examples = []
    for rejection in rejections:  # some of every code, not only of the one that comes first
        numbers[rejection.code] += 1
        if numbers[rejection.code] <= max(EXAMPLES // len(codes), 1):
            examples.append(rejection)
    whole = len(census.labels) + len(rejections)
    return Rejections(
        items=len(rejections), share=_share(len(rejections), whole), codes=codes, examples=tuple(examples)
    )


def _find_equal_groups(census: Census) -> tuple[Groups, Groups]:
    """Repeats (all but one of a group count) and groups whose labels disagree (all of them count)."""
    members: dict[bytes, list[int]] = {}
    for index, key in enumerate(census.keys):
        members.setdefault(key, []).append(index)
    groups = [group for group in members.values() if len(group) > 1]
    disagree = [len(np.unique(census.labels[group])) > 1 for group in groups]
    repeated = [group for group, is_conflicting in zip(groups, disagree, strict=True) if not is_conflicting]
    conflicting = [group for group, is_conflicting in zip(groups, disagree, strict=True) if is_conflicting]
    repeats = sum(map(len, repeated)) - len(repeated)
    conflicts = sum(map(len, conflicting))
    return _summarize_groups(census, repeated, repeats), _summarize_groups(census, conflicting, conflicts)


def _summarize_groups(census: Census, groups: list[list[int]], items: int) -> Groups:
    examples = tuple(tuple(_describe_item(census, index) for index in group[:EXAMPLES]) for group in groups[:EXAMPLES])
    return Groups(groups=len(groups), items=items, share=_share(items, len(census.labels)), examples=examples)


def _summarize_near(census: Census) -> Nearness:
    split_of, splits = census.split_of, list(census.splits)
    between: Counter[str] = Counter()
    leaked: dict[str, set[int]] = {split: set() for split in splits[1:]}
    leaks: dict[str, list[NearPair]] = {split: [] for split in splits[1:]}
    nearest = sorted(census.near.pairs, key=lambda pair: (pair.distance, pair.first, pair.second))
    for pair in nearest:
        (split, _), (later_split, item) = sorted((int(split_of[item]), item) for item in (pair.first, pair.second))
        if split < 0:
            raise ValueError(f"items {pair.first} and {pair.second} are called near, but one of them is in no split")
        between[f"{splits[split]} and {splits[later_split]}"] += 1
        if split == 0:
            leaked[splits[later_split]].add(item)
            leaks[splits[later_split]].append(pair)
    shares = {
        split: Leak(items=len(items), share=_share(len(items), len(census.splits[split])))
        for split, items in leaked.items()
    }
    return Nearness(
        method=census.near.method,
        pairs=len(nearest),
        pairs_with_other_label=sum(int(census.labels[a] != census.labels[b]) for a, b, _ in nearest),
        pairs_between=dict(sorted(between.items())),
        leaked=shares,
        with_more=census.near.with_more,
        cut_short=census.near.cut_short,
        examples=_describe_pairs(census, nearest[:EXAMPLES]),
        leak_examples={split: _describe_pairs(census, pairs[:LEAK_EXAMPLES]) for split, pairs in leaks.items()},
    )


def _describe_pairs(census: Census, pairs: list[NearPair]) -> tuple[NearExample, ...]:
    return tuple(
        NearExample(
            first=_describe_item(census, first),
            second=_describe_item(census, second),
            distance=distance,
        )
        for first, second, distance in pairs
    )


def _measure_balance(counts: dict[str, dict[str, int]], names: tuple[str, ...]) -> Balance:
    totals = [sum(of_split[name] for of_split in counts.values()) for name in names]
    smallest, largest = min(totals), max(totals)
    missing = {
        split: tuple(name for name, count in of_split.items() if count == 0)
        for split, of_split in counts.items()
        if 0 in of_split.values()
    }
    ratio = round(largest / smallest, 4) if smallest else None
    return Balance(largest=largest, smallest=smallest, ratio=ratio, missing=missing)


def _measure_order(labels: Indices) -> Order:
    n = len(labels)
    changes = int(np.count_nonzero(labels[1:] != labels[:-1]))
    counts = np.bincount(labels).astype(np.float64) if n else np.zeros(1)
    expected = float(n - 1 - (counts * (counts - 1)).sum() / n) if n else 0.0
    return Order(changes=changes, expected=round(expected, 1), is_sorted=changes < expected / 2)


def _choose_samples(census: Census) -> dict[str, tuple[Item, ...]]:
    """The first items of train, as it was shuffled, of each of the first labels."""
    train = next(iter(census.splits.values()))
    labels = census.labels[train]
    return {
        readable(name): tuple(
            _describe_item(census, int(index)) for index in train[labels == label][:SAMPLES_PER_LABEL]
        )
        for label, name in enumerate(census.label_names[:LABELS_WITH_SAMPLES])
    }
