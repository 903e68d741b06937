"""What the items are like: sizes, modes and brightness of images; lengths, scripts and unknown words of texts."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from convoy.data.census import Census, ImageFacts, TextFacts, readable

BINS = 24
COMMONEST = 20


class Spread(BaseModel):
    """How values are spread; the bins are equally wide up to the 99th percentile, the last has all above it too."""

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
    """Of the texts kept: lengths, letters per script, texts by the script that most of their letters have;
    of each split the share of texts that were cut, and of tokens that the vocabulary does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    characters: Spread
    tokens: Spread
    letters_per_script: dict[str, int]
    texts_per_script: dict[str, int]
    truncated_share: dict[str, float]
    unknown_share: dict[str, float]
    tokens_per_label: dict[str, float | None]


def spread(values: NDArray[np.float64] | NDArray[np.int64]) -> Spread:
    """Values (n,); all zero where there are none."""
    array = values.astype(np.float64) if len(values) else np.zeros(1)
    least, quarter, median, three_quarters, high, most = np.quantile(array, [0, 0.25, 0.5, 0.75, 0.99, 1]).round(3)
    end = high if high > least else least + 1
    counts, _ = np.histogram(np.minimum(array, end), BINS, (least, end))
    named = {"least": least, "quarter": quarter, "median": median, "three_quarters": three_quarters, "most": most}
    named |= {"mean": array.mean().round(3), "bins_from": least, "bins_to": end}
    return Spread(**{name: float(value) for name, value in named.items()}, bins=tuple(counts.tolist()))


def image_findings(census: Census, facts: ImageFacts) -> ImageFindings:
    kept = np.flatnonzero(census.split_of >= 0)
    widths, heights = facts.widths[kept], facts.heights[kept]
    sizes = Counter(f"{width} x {height}" for width, height in zip(widths, heights, strict=True))
    return ImageFindings(
        width_px=spread(widths),
        height_px=spread(heights),
        sizes=_commonest(sizes),
        modes=_commonest(Counter(readable(facts.modes[index]) for index in kept.tolist())),
        enlarged=int((np.maximum(widths, heights) < facts.size_px).sum()),
        brightness=spread(facts.brightness[kept]),
        brightness_per_label=_medians(census, facts.brightness, kept),
    )


def text_findings(census: Census, facts: TextFacts) -> TextFindings:
    kept = np.flatnonzero(census.split_of >= 0)
    letters: Counter[str] = Counter()
    main: Counter[str] = Counter()
    for index in kept.tolist():
        scripts = facts.scripts[index]
        letters.update(scripts)
        main[max(sorted(scripts), key=lambda name: scripts[name]) if scripts else "no letters"] += 1
    return TextFindings(
        characters=spread(facts.characters[kept]),
        tokens=spread(facts.tokens[kept]),
        letters_per_script=_commonest(letters),
        texts_per_script=_commonest(main),
        truncated_share={
            split: round(float(facts.truncated[items].mean()), 4) if len(items) else 0.0
            for split, items in census.splits.items()
        },
        unknown_share={
            split: round(float(facts.unknown[items].sum() / max(facts.tokens[items].sum(), 1)), 4)
            for split, items in census.splits.items()
        },
        tokens_per_label=_medians(census, facts.tokens, kept),
    )


def _commonest(counts: Counter[str]) -> dict[str, int]:
    """The most frequent, and the rest as one; ties by name, so that the order of the items does not matter."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[COMMONEST:])
    return dict(ordered[:COMMONEST]) | ({"others": rest} if rest else {})


def _medians(
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
