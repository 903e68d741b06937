"""A census: what preparation records of each item; and the findings about the content of its images or texts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from convoy.kinds.kind import Indices, NearPairs
from convoy.sources.items import Rejection

BINS = 24
MOST_FREQUENT = 20


@dataclass(frozen=True)
class ImageFacts:
    """Of each image (n,): how it came, and the mean of its prepared pixels, 0 to 255; `size_px` is its side."""

    widths: Indices
    heights: Indices
    modes: Sequence[str]
    brightness: NDArray[np.float64]
    size_px: int


@dataclass(frozen=True)
class TextFacts:
    """Of each text (n,): its characters, the tokens kept and how many of them are unknown, whether it was cut, and
    its letters per script (`count_scripts`)."""

    characters: Indices
    tokens: Indices
    unknown: Indices
    truncated: NDArray[np.bool_]
    scripts: Sequence[Mapping[str, int]]


@dataclass(frozen=True)
class Census:
    """Items (n) in the order of the source, kept or dropped.

    `names` are files, or rows as `table.csv:12`. `keys` are equal for exactly equal content (`splits.digest`).
    `splits` has the items of each split by index, train first, in the order in which it was written. `copies` has
    the items that are left out because another has their content, with the reason. `near` has the same indices. The
    facts of a dropped item may be anything: only those of items kept are used. Raises ValueError where a field lacks
    an entry per item.
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
    facts: ImageFacts | TextFacts

    def __post_init__(self) -> None:
        n = len(self.labels)
        lengths = {"names": len(self.names), "keys": len(self.keys)}
        lengths |= {name: len(value) for name, value in vars(self.facts).items() if name != "size_px"}
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise ValueError(f"the census has {n} labels, but {wrong}: each must have one entry per item")

    @property
    def split_of(self) -> Indices:
        """The number of each item's split (n,): 0 is train, -1 is dropped."""
        numbers = np.full(len(self.labels), -1, dtype=np.int64)
        for number, items in enumerate(self.splits.values()):
            numbers[items] = number
        return numbers


def readable(name: str) -> str:
    """A name as valid UTF-8: bytes that are no text, as a file name may have, become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


class Spread(BaseModel):
    """The distribution of values; bins are equally wide up to the 99th percentile, the last has all above it too."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    least: float
    quarter: float
    median: float
    three_quarters: float
    most: float
    mean: float
    bins_from: float
    bins_to: float
    bins: tuple[int, ...]


class ImageFindings(BaseModel):
    """Of the images kept: pixels as they came, the commonest sizes, how many are smaller than the model's
    side (and blown up), brightness 0 to 255 as prepared, and how many show a single brightness or next to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width_px: Spread
    height_px: Spread
    sizes: dict[str, int]
    modes: dict[str, int]
    enlarged: int
    brightness: Spread
    brightness_per_label: dict[str, float | None]


class TextFindings(BaseModel):
    """Of the texts kept: lengths, letters per script, texts by the script of most of their letters; of each split
    the share of texts that were cut, and the share of tokens that the vocabulary lacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    characters: Spread
    tokens: Spread
    letters_per_script: dict[str, int]
    texts_per_script: dict[str, int]
    truncated_share: dict[str, float]
    unknown_share: dict[str, float]
    tokens_per_label: dict[str, float | None]


def spread(values: NDArray[np.float64] | NDArray[np.int64]) -> Spread:
    """The distribution of values (n,); all zero where there are none."""
    array = values.astype(np.float64) if len(values) else np.zeros(1)
    least, quarter, median, three_quarters, high, most = np.quantile(array, [0, 0.25, 0.5, 0.75, 0.99, 1]).round(3)
    end = high if high > least else least + 1
    counts, _ = np.histogram(np.minimum(array, end), BINS, (least, end))
    fields = {"least": least, "quarter": quarter, "median": median, "three_quarters": three_quarters, "most": most}
    fields |= {"mean": array.mean().round(3), "bins_from": least, "bins_to": end}
    return Spread(**{name: float(value) for name, value in fields.items()}, bins=tuple(counts.tolist()))


def image_findings(census: Census, facts: ImageFacts) -> ImageFindings:
    kept = np.flatnonzero(census.split_of >= 0)
    widths, heights = facts.widths[kept], facts.heights[kept]
    sizes = Counter(f"{width} x {height}" for width, height in zip(widths, heights, strict=True))
    return ImageFindings(
        width_px=spread(widths),
        height_px=spread(heights),
        sizes=_most_frequent(sizes),
        modes=_most_frequent(Counter(readable(facts.modes[index]) for index in kept.tolist())),
        enlarged=int((np.maximum(widths, heights) < facts.size_px).sum()),
        brightness=spread(facts.brightness[kept]),
        brightness_per_label=_medians_per_label(census, facts.brightness, kept),
    )


def text_findings(census: Census, facts: TextFacts) -> TextFindings:
    kept = np.flatnonzero(census.split_of >= 0)
    letters: Counter[str] = Counter()
    main_scripts: Counter[str] = Counter()
    for index in kept.tolist():
        scripts = facts.scripts[index]
        letters.update(scripts)
        main_scripts[max(sorted(scripts), key=lambda name: scripts[name]) if scripts else "no letters"] += 1
    return TextFindings(
        characters=spread(facts.characters[kept]),
        tokens=spread(facts.tokens[kept]),
        letters_per_script=_most_frequent(letters),
        texts_per_script=_most_frequent(main_scripts),
        truncated_share={
            split: round(float(facts.truncated[items].mean()), 4) if len(items) else 0.0
            for split, items in census.splits.items()
        },
        unknown_share={
            split: round(float(facts.unknown[items].sum() / max(facts.tokens[items].sum(), 1)), 4)
            for split, items in census.splits.items()
        },
        tokens_per_label=_medians_per_label(census, facts.tokens, kept),
    )


def _most_frequent(counts: Counter[str]) -> dict[str, int]:
    """The most frequent names, all others as one entry; ties go by name: the order of the items does not matter."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    remaining = sum(count for _, count in ordered[MOST_FREQUENT:])
    return dict(ordered[:MOST_FREQUENT]) | ({"others": remaining} if remaining else {})


def _medians_per_label(
    census: Census, values: NDArray[np.float64] | NDArray[np.int64], kept: NDArray[np.int64]
) -> dict[str, float | None]:
    """Label -> the median of its items, None where it has none."""
    by_label = kept[np.argsort(census.labels[kept], kind="stable")]
    bounds = np.searchsorted(census.labels[by_label], np.arange(1, len(census.label_names)))
    groups = np.split(values[by_label], bounds)
    return {
        readable(name): round(float(np.median(group)), 2) if len(group) else None
        for name, group in zip(census.label_names, groups, strict=True)
    }
