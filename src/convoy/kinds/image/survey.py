"""A sample of a user's images -> what they are like, and the values of entries.yaml that suit them.

Each value comes with its reason, a short comment for params.yaml.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convoy.core.rejection import InputRejected
from convoy.kinds.image.items.preprocessing import decode, read_size

EXPECTED = "PNG, JPEG or WebP files in a folder per label, or named by a column of a table; arrays of pixels"

COLUMN_NAMES = ("path", "image", "file", "filename", "file_name", "image_path", "filepath")  # of tables, likely ones
BATCH_SIZE = 128  # of training, where there are many
MAX_PIXELS = 100_000_000
COLOURED = 12  # of 255: a grey picture saved as a colour JPEG differs by less
SIDES_PX = (16, 28, 32, 48, 64)  # a network's time grows with the square of the side


def recognises(name: str, content: bytes) -> bool:
    """Whether a file is an image, by the start of its content, whatever its name."""
    try:
        read_size(content, MAX_PIXELS)
    except InputRejected:
        return False
    return True


@dataclass
class Sample:
    """Figures of the images that were added."""

    sides_px: list[int] = field(default_factory=list)  # the longer side of each
    most_pixels: int = 0
    coloured: int = 0
    dark_borders: int = 0

    def add(self, content: bytes) -> None:
        """Note one image. Raises InputRejected where it is none."""
        image = decode(content, MAX_PIXELS)
        self.sides_px.append(max(image.size))
        self.most_pixels = max(self.most_pixels, image.width * image.height)
        thumbnail = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
        self.coloured += bool(np.ptp(thumbnail, axis=2).mean() > COLOURED)
        border = np.concatenate([thumbnail[0], thumbnail[-1], thumbnail[:, 0], thumbnail[:, -1]])
        self.dark_borders += bool(border.mean() < 64)

    def describe(self) -> Iterator[str]:
        """What was seen, in plain words."""
        if self.sides_px:
            low, middle, high = np.percentile(self.sides_px, (5, 50, 95)).round().astype(int)
            share = self.coloured / len(self.sides_px)
            yield f"longer side {middle} px (5 to 95 %: {low} to {high}); {share:.0%} of a sample have colours"

    def __len__(self) -> int:
        return len(self.sides_px)

    def propose(self) -> dict[str, tuple[Any, str]]:
        """Values for the template, each with its reason; the sample has one image at least."""
        coloured = self.coloured / len(self) > 0.05
        dark_share = self.dark_borders / len(self)
        side = f"the longer side is {self._median():.0f} px in the middle; time grows with its square"
        polarity = "light_on_dark" if dark_share > 0.95 and not coloured else "any"
        return {
            "size_px": (self._side(), side),
            "channels": (3 if coloured else 1, "colours were seen" if coloured else "no colours were seen"),
            "polarity": (polarity, f"{dark_share:.0%} have a dark border"),
            "max_pixels": (max(16_000_000, self.most_pixels), f"the largest of a sample has {self.most_pixels:,}"),
            "flip": (False, "true where a mirror image has the same label"),
            "shift_px": (max(1, self._side() // 14), "0 where all stand alike"),
        }

    def _median(self) -> float:
        return float(np.median(self.sides_px))

    def _side(self) -> int:
        return next((side for side in SIDES_PX if side >= self._median()), SIDES_PX[-1])
