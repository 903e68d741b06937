"""Duplicates out, then stratified, seeded, reproducible splits; every item kept or dropped is counted."""

import hashlib
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def digests(contents: Iterable[bytes]) -> list[bytes]:
    """A digest per item, equal for items with exactly the same content."""
    return [hashlib.blake2b(content, digest_size=16).digest() for content in contents]


def distinct(
    keys: list[bytes], labels: NDArray[np.int64], taken: set[bytes] | None = None
) -> tuple[Indices, dict[str, int]]:
    """Indices of the items to keep, in order, and how many were dropped for which reason.

    Kept is the first of equal items; all of them go where their labels disagree, or where `taken` has them already.
    """
    found: dict[bytes, set[int]] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        found.setdefault(key, set()).add(label)
    kept: list[int] = []
    seen: set[bytes] = set()
    dropped = Counter({"duplicate": 0, "conflicting_labels": 0, "duplicate_of_test": 0})
    for index, key in enumerate(keys):
        if taken and key in taken:
            dropped["duplicate_of_test"] += 1
        elif len(found[key]) > 1:
            dropped["conflicting_labels"] += 1
        elif key in seen:
            dropped["duplicate"] += 1
        else:
            kept.append(index)
            seen.add(key)
    return np.array(kept, dtype=np.int64), dict(dropped)


def stratified(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Indices, Indices]:
    """Divide items into (rest, part): `part` has this share of every label, rounded; both are shuffled.

    Raises ValueError where a label is too rare to stand on both sides.
    """
    generator = np.random.default_rng(seed)
    rest, part = [], []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = round(len(members) * share)
        if not 0 < count < len(members):
            raise ValueError(f"label {label} has {len(members)} items: too few to put a share of {share} aside")
        part.append(members[:count])
        rest.append(members[count:])
    return generator.permutation(np.concatenate(rest)), generator.permutation(np.concatenate(part))


def held_out(
    labels: NDArray[np.int64], validation_share: float, calibration_share: float, seed: int
) -> tuple[Indices, Indices, Indices]:
    """Divide items into (train, validation, calibration); train depends on the sum of the two shares alone."""
    both = validation_share + calibration_share
    train, aside = stratified(labels, both, seed)
    validation, calibration = stratified(labels[aside], calibration_share / both, seed)
    return train, aside[validation], aside[calibration]


def cut(splits: dict[str, Indices], most: dict[str, int | None]) -> tuple[dict[str, Indices], int]:
    """The first `most` items of each split, all where it is None, and how many that leaves out."""
    kept = {name: indices[: most[name]] for name, indices in splits.items()}
    return kept, sum(map(len, splits.values())) - sum(map(len, kept.values()))


def count_labels(labels: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, int]:
    """How many items each label has, by name, with the total under `n`."""
    counts = np.bincount(labels, minlength=len(names))
    return {"n": len(labels)} | {name: int(count) for name, count in zip(names, counts, strict=True)}
