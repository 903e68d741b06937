"""Images -> the same images shifted, partly hidden, or with their pixels in another order: what is seen of space."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy.core.params import Section

Images = NDArray[np.uint8]  # (n, height, width, channels)
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up


class SpaceParams(Section):
    """By how many pixels images are shifted, the sides of the patches that hide, and which of each is judged."""

    shifts_px: tuple[int, ...] = Field(min_length=2)
    judged_shift_px: int = Field(ge=1)
    patches_px: tuple[int, ...] = Field(min_length=2)
    judged_patch_px: int = Field(ge=1)
    seed: int


def shift(images: Images, pixels: int) -> Images:
    """Each image by so many pixels, the four directions in turn; what comes in from outside is 0."""
    height, width = images.shape[1:3]
    wide = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    shifted = np.empty_like(images)
    for turn, (down, right) in enumerate(DIRECTIONS):
        top, left = pixels - down * pixels, pixels - right * pixels
        shifted[turn :: len(DIRECTIONS)] = wide[turn :: len(DIRECTIONS), top : top + height, left : left + width]
    return shifted


def hide(images: Images, side_px: int, seed: int) -> Images:
    """A square of 0 anywhere within each image; the same seed puts all sizes at places that fit to each other."""
    height, width = images.shape[1:3]
    side_px = min(side_px, height, width)
    places = np.random.default_rng(seed).random((2, len(images), 1))
    tops = np.floor(places[0] * (height - side_px + 1))
    lefts = np.floor(places[1] * (width - side_px + 1))
    rows = (np.arange(height) >= tops) & (np.arange(height) < tops + side_px)
    columns = (np.arange(width) >= lefts) & (np.arange(width) < lefts + side_px)
    return np.where(rows[:, :, None, None] & columns[:, None, :, None], np.uint8(0), images)


def permute(images: Images, seed: int) -> Images:
    """The pixels of each image in one other order, the same for all images of that size."""
    count, height, width, channels = images.shape
    order = np.random.default_rng(seed).permutation(height * width)
    return images.reshape(count, height * width, channels)[:, order].reshape(images.shape)
