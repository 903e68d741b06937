"""Raw images: the bytes of a PNG, JPEG or WebP file."""

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convoy.core.png import encode_png

RAW = bytes
SUFFIXES = ()  # of files; any: what is an image is seen from its content
COLUMN = "path"  # of a table to score: a cell has a file's path


def as_sent(contents: NDArray[np.uint8]) -> list[bytes]:
    """Images of a prepared split, (n, height, width, channels), as a user would send them: PNGs."""
    return [encode_png(pixels) for pixels in contents]


def to_example(raw: bytes) -> str:
    """As examples.json holds it: in base64."""
    return base64.b64encode(raw).decode()


def from_example(example: str) -> bytes:
    """What `to_example` took."""
    return base64.b64decode(example)


def shown(raws: Sequence[bytes]) -> bytes:
    """The one to show as an example: the first."""
    return raws[0]
