"""Pixels -> a PNG file, in memory."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUICK, SMALL = 1, 6  # zlib's levels; SMALL is Pillow's own


def encode_png(pixels: NDArray[np.uint8], level: int = SMALL) -> bytes:
    """One image (height, width) or (height, width, 1 or 3) uint8 as PNG; the same pixels and level, the same bytes."""
    stream = io.BytesIO()
    grey_or_colour = pixels.squeeze(-1) if pixels.shape[2:] == (1,) else pixels
    Image.fromarray(grey_or_colour).save(stream, "PNG", compress_level=level)
    return stream.getvalue()
