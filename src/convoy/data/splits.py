"""Duplicates out, then stratified, seeded, reproducible splits; every item kept or dropped is counted."""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from convoy.core.params import Section
from convoy.core.paths import SPLITS, Split

Indices = NDArray[np.int64]
HELD_OUT: tuple[Split, ...] = ("test", "validation", "calibration", "gate")
_OTHERWISE = (
    "remove it from the source, so that it is cut from train, or set `given_splits: false` in the section fetch_* of "
    "params.yaml, which divides all anew"
)


class DivisionParams(Section):
    """How items are divided: shares of those that the source does not put anywhere; a max of null is all."""

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

    @field_validator("test_share")  # the last of them: the others stand in `others.data`, if they are valid
    @classmethod
    def _leaves_some_to_train(cls, share: float, others: ValidationInfo) -> float:
        shares = {name: value for name, value in others.data.items() if name.endswith("_share")} | {"test_share": share}
        total = math.fsum(shares.values())
        if total >= 1:
            told = ", ".join(f"{name} {value:g}" for name, value in shares.items())
            raise ValueError(f"the sum of {told} is {total:g}, must be below 1: train is what they leave; lower some")
        return share


class DivisionRefused(ValueError):
    """Items that cannot be divided; the message names the label or the split, the cause and the remedy."""


class LabelTooRare(DivisionRefused):
    """A label has too few items to stand in every split."""


class SplitEmpty(DivisionRefused):
    """A split that the source gives has nothing of its own."""


@dataclass(frozen=True)
class Division:
    """Indices of each split's items, and how many items are in none, by the reason.

    `copies` has the reason of each item that is left out because another has its content: all of `dropped` but those
    over a max.
    """

    rows: dict[Split, Indices]
    dropped: dict[str, int]
    copies: dict[int, str]

    def split_of(self, count: int) -> Indices:
        """Of each of `count` items (count,) the index of its split in SPLITS, or -1."""
        numbers = np.full(count, -1, dtype=np.int64)
        for name, rows in self.rows.items():
            numbers[rows] = SPLITS.index(name)
        return numbers


def divide(
    keys: list[bytes],
    labels: NDArray[np.int64],
    given: NDArray[np.int64],
    names: tuple[str, ...],
    params: DivisionParams,
) -> Division:
    """Divide items with content digests `keys` and `labels` (n,); `given` (n,) is an index of SPLITS, or -1.

    What is held out by the source stays whole, but for what is in another such split; train loses what is in any of
    them. Held-out splits that the source lacks are cut from train. Raises LabelTooRare and SplitEmpty.
    """
    rows, taken = _given(keys, given)
    in_none = given > 0
    for own in rows.values():
        in_none[own] = False
    copies = dict.fromkeys(np.flatnonzero(in_none).tolist(), "duplicate_of_held_out")
    pool = np.flatnonzero(given <= 0)
    kept, of_pool = distinct([keys[index] for index in pool], labels[pool], taken)
    copies |= {int(pool[index]): reason for index, reason in of_pool.items()}
    dropped = Counter({"duplicate_of_held_out": 0, "duplicate": 0, "conflicting_labels": 0})
    dropped.update(copies.values())
    missing = [name for name in HELD_OUT if name not in rows]
    _require_enough(labels[pool[kept]], names, missing)
    rows |= _cut_out(pool[kept], labels, missing, params)
    whole = {name: rows[name] for name in SPLITS}
    cut_rows, over_max = cut(whole, {name: getattr(params, f"max_{name}") for name in SPLITS}, params.seed)
    return Division(cut_rows, {**dropped, "over_max": over_max}, copies)


def require_usable(given: NDArray[np.int64], usable: NDArray[np.int64]) -> None:
    """Of `given` (n,) as for `divide` each held-out split has one of the `usable` items (indices). Raises SplitEmpty.

    Else it would be cut from train, as if the source had none.
    """
    left = {SPLITS[place] for place in given[usable] if place > 0}
    for name in HELD_OUT:
        count = np.count_nonzero(given == SPLITS.index(name))
        if count and name not in left:
            raise SplitEmpty(
                f"the split {name!r} that the source gives has {count} items, and none of them can be used; mend them, "
                f"or {_OTHERWISE}"
            )


def _given(keys: list[bytes], given: NDArray[np.int64]) -> tuple[dict[Split, Indices], set[bytes]]:
    rows: dict[Split, Indices] = {}
    taken: dict[bytes, Split] = {}
    for name in HELD_OUT:
        found = np.flatnonzero(given == SPLITS.index(name)).tolist()
        if found:
            own = [index for index in found if keys[index] not in taken]
            if not own:
                raise SplitEmpty(_explain_empty(name, Counter(taken[keys[index]] for index in found)))
            rows[name] = np.array(own, dtype=np.int64)
            taken |= {keys[index]: name for index in own}
    return rows, set(taken)


def _explain_empty(name: Split, copies: Counter[Split]) -> str:
    told = ", ".join(f"{count} of {other}" for other, count in copies.items())
    return (
        f"the split {name!r} that the source gives has {copies.total()} items, and none is left: all are copies of "
        f"items of other splits that are held out ({told}), which keep them; put other items into {name!r}, or "
        f"{_OTHERWISE}"
    )


def _require_enough(labels: NDArray[np.int64], names: tuple[str, ...], missing: list[Split]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    least = 1 + len(missing)
    rare = [f"{names[label]!r} {counts[label]}" for label in np.flatnonzero(counts < least)]
    if rare:
        raise LabelTooRare(
            f"labels with too few distinct items to train on: {', '.join(rare[:10])} (of {len(rare)} such labels); "
            f"at least {least} each are needed for {', '.join(['train', *missing])}; "
            "add items, or leave these labels out by `labels` in the section fetch_* of params.yaml"
        )


def _cut_out(
    pool: Indices, labels: NDArray[np.int64], missing: list[Split], params: DivisionParams
) -> dict[Split, Indices]:
    rows: dict[Split, Indices] = {}
    left = 1.0
    if "test" in missing:
        rest, test = stratified(labels[pool], params.test_share, params.seed, least=1, left=len(missing))
        left -= params.test_share
        rows["test"], pool = pool[test], pool[rest]
    others = [name for name in missing if name != "test"]
    shares = [getattr(params, f"{name}_share") / left for name in others]
    parts = held_out(labels[pool], shares, params.seed)
    return rows | {name: pool[part] for name, part in zip(("train", *others), parts, strict=True)}


def digest(content: bytes) -> bytes:
    """Equal for items with exactly the same content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def distinct(
    keys: list[bytes], labels: NDArray[np.int64], taken: set[bytes] | None = None
) -> tuple[Indices, dict[int, str]]:
    """Indices of the items to keep, in order, and of those dropped, with the reason of each.

    Kept is the first of equal items; all of them go where their labels disagree, or where `taken` has them already.
    """
    found: dict[bytes, set[int]] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        found.setdefault(key, set()).add(label)
    kept: list[int] = []
    seen: set[bytes] = set()
    dropped: dict[int, str] = {}
    for index, key in enumerate(keys):
        if taken and key in taken:
            dropped[index] = "duplicate_of_held_out"
        elif len(found[key]) > 1:
            dropped[index] = "conflicting_labels"
        elif key in seen:
            dropped[index] = "duplicate"
        else:
            kept.append(index)
            seen.add(key)
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
        behind = len(shares) - 1 - place
        rest, part = stratified(labels[aside], share / sum(shares[place:]), seed, left=behind)
        parts.append(aside[part])
        aside = aside[rest]
    return [*parts, aside]


def cut(splits: dict[Split, Indices], most: dict[Split, int | None], seed: int) -> tuple[dict[Split, Indices], int]:
    """`most` items of each split, all where it is None, and how many that leaves out.

    They are drawn, in their order: a split that the source gives may be sorted by its labels.
    """
    kept = {}
    for name, indices in splits.items():
        limit = most[name]
        drawn = np.random.default_rng(seed).permutation(len(indices))[:limit]
        kept[name] = indices if limit is None else indices[np.sort(drawn)]
    return kept, sum(map(len, splits.values())) - sum(map(len, kept.values()))
