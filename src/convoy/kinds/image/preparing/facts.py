"""What preparation records of each image, and the figures that the report of the data has of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.kinds.preparing.content import (
    Content,
    Counts,
    Histogram,
    Indices,
    PerLabel,
    kept_items,
    medians_per_label,
    most_frequent,
    readable,
    spread,
)


@dataclass(frozen=True)
class Facts:
    """Of each image (n,): how it came, and the mean of its prepared pixels, 0 to 255; `size_px` is its side."""

    widths: Indices
    heights: Indices
    modes: Sequence[str]
    brightness: NDArray[np.float64]
    size_px: int

    def content(self, splits: Mapping[str, Indices], labels: Indices, names: Sequence[str]) -> Content:
        """The figures of the images in the splits; `labels` (n,) are indices of `names`."""
        kept = kept_items(splits)
        widths, heights = self.widths[kept], self.heights[kept]
        sizes = Counter(f"{width} x {height}" for width, height in zip(widths, heights, strict=True))
        modes = Counter(readable(self.modes[index]) for index in kept.tolist())
        enlarged = int((np.maximum(widths, heights) < self.size_px).sum())
        return Content(
            title="Images",
            histograms=(
                Histogram(key="width_px", name="Width", unit="pixels as they came", spread=spread(widths)),
                Histogram(key="height_px", name="Height", unit="pixels as they came", spread=spread(heights)),
                Histogram(
                    key="brightness",
                    name="Brightness",
                    unit="mean of the prepared pixels, 0 to 255",
                    spread=spread(self.brightness[kept]),
                ),
            ),
            counts=(
                Counts(key="sizes", title="Sizes", what="width x height", of="images", counts=most_frequent(sizes)),
                Counts(key="modes", title="Modes", what="mode", of="images", counts=most_frequent(modes)),
            ),
            per_label=PerLabel(name="brightness", medians=medians_per_label(self.brightness, kept, labels, names)),
            notes=(f"{enlarged:,} are smaller than the model's side, and enlarged.",),
            numbers={"enlarged": enlarged},
        )
