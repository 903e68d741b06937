"""Images that were taken for something else -> a picture of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

SHOWN = 25


def draw(images: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Figure:
    """At most SHOWN images (height, width, channels), each under its caption."""
    figure = Figure(figsize=(10, 11), layout="constrained")
    for position, (pixels, caption) in enumerate(zip(images, captions, strict=True), start=1):
        axes = figure.add_subplot(5, 5, position)
        axes.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(caption, fontsize=8)
    return figure
