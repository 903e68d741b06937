"""Duplicates out, then stratified, seeded, reproducible splits; every item kept or dropped is counted."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from convoy.core.params import Section
from convoy.core.paths import SPLITS, Split
from convoy.kinds.preparing.content import Indices

HELD_OUT: tuple[Split, ...] = ("test", "validation", "calibration", "gate")
_OTHER_REMEDY = (
    "remove it from the source, so that it is cut from train, or set `given_splits: false` in `data.<name>.fetch` of "
    "params.yaml, which divides all anew"
)


class DivisionParams(Section):
    """How items are divided: shares of the items to which the source gives no split; a max of null takes all."""

    seed: int = Field(ge=0)
    validation_share: float = Field(gt=0, lt=1)
    calibration_share: float = Field(gt=0, lt=1)
    gate_share: float = Field(gt=0, lt=1)
    test_share: float = Field(gt=0, lt=1)
    max_train: int | None = Field(ge=1)
    max_validation: int | None = Field(ge=1)
    max_calibration: int | None = Field(ge=1)
    max_gate: int | None = Field(ge=1)
    max_test: int | None = Field(ge=1)

    @field_validator("test_share")  # the last of them: the others stand in `info.data`, if they are valid
    @classmethod
    def _leave_some_to_train(cls, share: float, info: ValidationInfo) -> float:
        shares = {name: value for name, value in info.data.items() if name.endswith("_share")} | {"test_share": share}
        total = math.fsum(shares.values())
        if total >= 1:
            summands = ", ".join(f"{name} {value:g}" for name, value in shares.items())
            raise ValueError(
                f"the sum of {summands} is {total:g}, must be below 1: train is what they leave; lower some"
            )
        return share


class DivisionRefused(ValueError):
    """Items that cannot be divided; the message names the label or the split, the cause and the remedy."""


class LabelTooRare(DivisionRefused):
    """A label has too few items to stand in every split."""


class SplitEmpty(DivisionRefused):
    """A split that the source gives has no item of its own."""


@dataclass(frozen=True)
class Division:
    """Indices of each split's items, in the order of SPLITS, and how many items are in no split, by the reason.

    `copies` has the reason of each item that is left out because another has its content: all of `dropped` but those
    over a max.
    """

    rows: dict[Split, Indices]
    dropped: dict[str, int]
    copies: dict[int, str]


def split_of(rows: Mapping[str, Indices], count: int) -> Indices:
    """The number of the split of each of `count` items (count,): 0 is train, -1 is none."""
    numbers = np.full(count, -1, dtype=np.int64)
    for number, items in enumerate(rows.values()):
        numbers[items] = number
    return numbers


def divide(
    keys: list[bytes],
    labels: NDArray[np.int64],
    given: NDArray[np.int64],
    names: tuple[str, ...],
    params: DivisionParams,
) -> Division:
    """Divide items with content digests `keys` and `labels` (n,); `given` (n,) is an index of SPLITS, or -1.

    Splits that the source holds out stay whole, but for copies of items of another such split; train loses the copies
    of items of any of them. Held-out splits that the source lacks are cut from train. Raises LabelTooRare and
    SplitEmpty.
    """
    rows, taken = _take_held_out(keys, given)
    left_out = given > 0
    for members in rows.values():
        left_out[members] = False
    copies = dict.fromkeys(np.flatnonzero(left_out).tolist(), "duplicate_of_held_out")
    pool = np.flatnonzero(given <= 0)
    kept, pool_copies = distinct([keys[index] for index in pool], labels[pool], taken)
    copies |= {int(pool[index]): reason for index, reason in pool_copies.items()}
    dropped = Counter({"duplicate_of_held_out": 0, "duplicate": 0, "conflicting_labels": 0})
    dropped.update(copies.values())
    missing = [name for name in HELD_OUT if name not in rows]
    _require_enough_per_label(labels[pool[kept]], names, missing)
    rows |= _cut_from_train(pool[kept], labels, missing, params)
    whole = {name: rows[name] for name in SPLITS}
    cut_rows, over_max = cut(whole, {name: getattr(params, f"max_{name}") for name in SPLITS}, params.seed)
    return Division(cut_rows, {**dropped, "over_max": over_max}, copies)


def require_usable(given: NDArray[np.int64], usable: NDArray[np.int64]) -> None:
    """Raise SplitEmpty where a held-out split of `given` (n,), as in `divide`, has no item in `usable` (indices).

    Such a split would be cut from train, as if the source did not have it.
    """
    left = {SPLITS[place] for place in given[usable] if place > 0}
    for name in HELD_OUT:
        count = np.count_nonzero(given == SPLITS.index(name))
        if count and name not in left:
            raise SplitEmpty(
                f"the split {name!r} that the source gives has {count} items, and none of them can be used; mend them, "
                f"or {_OTHER_REMEDY}"
            )


def _take_held_out(keys: list[bytes], given: NDArray[np.int64]) -> tuple[dict[Split, Indices], set[bytes]]:
    rows: dict[Split, Indices] = {}
    taken: dict[bytes, Split] = {}
    for name in HELD_OUT:
        members = np.flatnonzero(given == SPLITS.index(name)).tolist()
        if members:
            kept = [index for index in members if keys[index] not in taken]
            if not kept:
                raise SplitEmpty(_explain_empty(name, Counter(taken[keys[index]] for index in members)))
            rows[name] = np.array(kept, dtype=np.int64)
            taken |= {keys[index]: name for index in kept}
    return rows, set(taken)


def _explain_empty(name: Split, copies: Counter[Split]) -> str:
    counts = ", ".join(f"{count} of {split}" for split, count in copies.items())
    return (
        f"the split {name!r} that the source gives has {copies.total()} items, and none is left: all are copies of "
        f"items of other splits that are held out ({counts}), which keep them; put other items into {name!r}, or "
        f"{_OTHER_REMEDY}"
    )


def _require_enough_per_label(labels: NDArray[np.int64], names: tuple[str, ...], missing: list[Split]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    least = 1 + len(missing)
    rare = [f"{names[label]!r} {counts[label]}" for label in np.flatnonzero(counts < least)]
    if rare:
        raise LabelTooRare(
            f"labels with too few distinct items to train on: {', '.join(rare[:10])} (of {len(rare)} such labels); "
            f"at least {least} each are needed for {', '.join(['train', *missing])}; "
            "add items, or leave these labels out by `labels` in `data.<name>.fetch` of params.yaml"
        )


def _cut_from_train(
    pool: Indices, labels: NDArray[np.int64], missing: list[Split], params: DivisionParams
) -> dict[Split, Indices]:
    rows: dict[Split, Indices] = {}
    remaining_share = 1.0
    if "test" in missing:
        remaining, test = stratified(labels[pool], params.test_share, params.seed, least=1, left=len(missing))
        remaining_share -= params.test_share
        rows["test"], pool = pool[test], pool[remaining]
    names = [name for name in missing if name != "test"]
    shares = [getattr(params, f"{name}_share") / remaining_share for name in names]
    parts = held_out(labels[pool], shares, params.seed)
    return rows | {name: pool[part] for name, part in zip(("train", *names), parts, strict=True)}


def distinct(
    keys: list[bytes], labels: NDArray[np.int64], taken: set[bytes] | None = None
) -> tuple[Indices, dict[int, str]]:
    """Indices of the items to keep, in order, and of those dropped, with the reason of each.

    The first of equal items is kept; none is kept where their labels disagree, or where `taken` has their key.
    """
    labels_of: dict[bytes, set[int]] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        labels_of.setdefault(key, set()).add(label)
    kept: list[int] = []
    kept_keys: set[bytes] = set()
    dropped: dict[int, str] = {}
    for index, key in enumerate(keys):
        if taken and key in taken:
            dropped[index] = "duplicate_of_held_out"
        elif len(labels_of[key]) > 1:
            dropped[index] = "conflicting_labels"
        elif key in kept_keys:
            dropped[index] = "duplicate"
        else:
            kept.append(index)
            kept_keys.add(key)
    return np.array(kept, dtype=np.int64), dropped


def stratified(
    labels: NDArray[np.int64], share: float, seed: int, least: int = 1, left: int = 1
) -> tuple[Indices, Indices]:
    """Divide items into (rest, part): `part` has this share of every label, rounded; both are shuffled.

    Of each label `part` has at least `least` items and leaves at least `left`. Raises LabelTooRare where it cannot.
    """
    generator = np.random.default_rng(seed)
    rest, part = [], []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(round(len(members) * share), least), len(members) - left)
        if count < least:
            raise LabelTooRare(f"label {label} has {len(members)} items: too few to put a share of {share} aside")
        part.append(members[:count])
        rest.append(members[count:])
    return generator.permutation(np.concatenate(rest)), generator.permutation(np.concatenate(part))


def held_out(labels: NDArray[np.int64], shares: list[float], seed: int) -> list[Indices]:
    """Divide items into train and a part for each share; train depends on the sum of the shares alone."""
    if not shares:
        return [np.arange(len(labels))]
    train, aside = stratified(labels, sum(shares), seed, least=len(shares))
    parts = [train]
    for place, share in enumerate(shares[:-1]):
        parts_left = len(shares) - 1 - place
        remaining, part = stratified(labels[aside], share / sum(shares[place:]), seed, left=parts_left)
        parts.append(aside[part])
        aside = aside[remaining]
    return [*parts, aside]


def cut(splits: dict[Split, Indices], most: dict[Split, int | None], seed: int) -> tuple[dict[Split, Indices], int]:
    """At most `most` items of each split, all where it is None, and how many are left out.

    The items are drawn at random and keep their order: a split that the source gives may be sorted by its labels.
    """
    kept = {}
    for name, indices in splits.items():
        limit = most[name]
        drawn = np.random.default_rng(seed).permutation(len(indices))[:limit]
        kept[name] = indices if limit is None else indices[np.sort(drawn)]
    return kept, sum(map(len, splits.values())) - sum(map(len, kept.values()))
