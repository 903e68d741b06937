"""What the report of the data says about the content of its items: each kind measures its own."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Indices = NDArray[np.int64]
Values = NDArray[np.float64] | NDArray[np.int64]
BINS = 24
MOST_FREQUENT = 20
UNKNOWN_TOKENS = "unknown_tokens"  # the key of the shares that the limit max_unknown_share is for


class Figures(BaseModel):
    """A part of the report, the same JSON for the same content."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(Figures):
    """The distribution of values; bins are equally wide up to the 99th percentile, the last has all above it too."""

    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float
    mean: float
    bins_from: float
    bins_to: float
    bins: tuple[int, ...]


class Histogram(Figures):
    """A distribution with its name and unit, as `Width, pixels`; `key` is for programs."""

    key: str
    name: str
    unit: str
    spread: Spread


class Counts(Figures):
    """How many items, or whatever `of` names, there are of each `what`; `key` is for programs."""

    key: str
    title: str
    what: str
    of: str
    counts: dict[str, int]


class PerLabel(Figures):
    """The median of one figure for each label, None where it has no item."""

    name: str
    medians: dict[str, float | None]


class Shares(Figures):
    """A share of each split; `key` is for programs."""

    key: str
    name: str
    of_split: dict[str, float]


class Content(Figures):
    """All figures about the content of the items kept; `notes` say in words what `numbers` has for programs."""

    title: str
    histograms: tuple[Histogram, ...]
    counts: tuple[Counts, ...]
    per_label: PerLabel
    shares: tuple[Shares, ...] = ()
    notes: tuple[str, ...] = ()
    numbers: dict[str, float] = {}


def readable(name: str) -> str:
    """A name as valid UTF-8: bytes that are no text, as a file name may have, become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def kept_items(splits: Mapping[str, Indices]) -> Indices:
    """The items of all splits, in the order of the source."""
    items = list(splits.values())
    return np.sort(np.concatenate(items)) if items else np.arange(0)


def spread(values: Values) -> Spread:
    """The distribution of values (n,); all zero where there are none."""
    array = values.astype(np.float64) if len(values) else np.zeros(1)
    least, quarter, median, three_quarters, high, most = np.quantile(array, [0, 0.25, 0.5, 0.75, 0.99, 1]).round(3)
    end = high if high > least else least + 1
    counts, _ = np.histogram(np.minimum(array, end), BINS, (least, end))
    fields = {"least": least, "quarter": quarter, "median": median, "three_quarters": three_quarters, "most": most}
    fields |= {"mean": array.mean().round(3), "bins_from": least, "bins_to": end}
    return Spread(**{name: float(value) for name, value in fields.items()}, bins=tuple(counts.tolist()))


def most_frequent(counts: Counter[str]) -> dict[str, int]:
    """The most frequent names, all others as one entry; ties go by name: the order of the items does not matter."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    remaining = sum(count for _, count in ordered[MOST_FREQUENT:])
    return dict(ordered[:MOST_FREQUENT]) | ({"others": remaining} if remaining else {})


def medians_per_label(values: Values, kept: Indices, labels: Indices, names: Sequence[str]) -> dict[str, float | None]:
    """Label -> the median of its items among `kept`, None where it has none; `values` and `labels` are (n,)."""
    by_label = kept[np.argsort(labels[kept], kind="stable")]
    bounds = np.searchsorted(labels[by_label], np.arange(1, len(names)))
    groups = np.split(values[by_label], bounds)
    return {
        readable(name): round(float(np.median(group)), 2) if len(group) else None
        for name, group in zip(names, groups, strict=True)
    }
