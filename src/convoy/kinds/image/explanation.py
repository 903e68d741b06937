"""How an image is explained: heatmaps of what its places add, and what falls where a patch is covered."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from convoy.core.params import Section
from convoy.core.png import QUICK, encode_png

OVERLAY_PX = 224  # side of a picture, at most: 28 pixels eight times as large
STRENGTH = 0.7  # the opacity of the colour where the heatmap is strongest
# Orange speaks for the label, blue against it: two colours that most of the colour-blind tell apart.
FOR, AGAINST = (255, 120, 0), (0, 90, 255)
Probabilities = Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]  # prepared inputs -> (inputs, labels)


class Params(Section):
    """A square of `patch_share` of an image's side covers `patches` x `patches` places of it, one at a time."""

    patches: int = Field(ge=2, le=16)
    patch_share: float = Field(gt=0, le=1)


class ImageExplanation(Params):
    """How an image is explained; what is covered has the colour `neutral`, the mean of the training images."""

    kind: Literal["image"]
    neutral: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field(min_length=1)


def read(content: dict[str, Any]) -> ImageExplanation:
    """The explanation section of a card."""
    return ImageExplanation.model_validate(content)


def describe(
    params: Params, training_inputs: Callable[[], NDArray[np.uint8]], widths: tuple[int, ...]
) -> ImageExplanation:
    """The explanation section of the card; the training inputs are images (n, height, width, channels)."""
    neutral = tuple(map(round, training_inputs().mean(axis=(0, 1, 2)).tolist()))
    return ImageExplanation(kind="image", neutral=neutral, **params.model_dump())


def occlude(
    probabilities: Probabilities, contract: ImageExplanation, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixels (size, size, channels) -> probabilities (labels,), and by how much they fall (labels, patches, patches).

    Occlusion (Zeiler & Fergus 2014, arXiv:1311.2901): a square of neutral colour covers one place after the other.
    """
    size = len(pixels)
    side = max(1, round(size * contract.patch_share))
    starts = np.linspace(0, size - side, contract.patches).round().astype(int).tolist()
    images = [pixels]
    for top in starts:
        for left in starts:
            covered = pixels.copy()
            covered[top : top + side, left : left + side] = contract.neutral
            images.append(covered)
    original, *occluded = probabilities(images)
    falls = original[:, np.newaxis] - np.stack(occluded, axis=1)
    return original, falls.reshape(len(original), contract.patches, contract.patches)


def enlarge(heatmap: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
    """A heatmap (rows, columns) -> (size_px, size_px), interpolated linearly between the middles of its places."""
    image = Image.fromarray(np.ascontiguousarray(heatmap, dtype=np.float32))
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def draw_overlay(pixels: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> bytes:
    """The image (size, size, channels) in grey under the heatmap (rows, columns) in colours, as a PNG."""
    size = len(pixels)
    side = max(OVERLAY_PX // size, 1) * size if size <= OVERLAY_PX else OVERLAY_PX
    image = Image.fromarray(pixels.squeeze()).convert("L")
    # An enlarged image keeps its pixels as squares: they are what the model read.
    grey = image.resize((side, side), Image.Resampling.NEAREST if side >= size else Image.Resampling.LANCZOS)
    heat = enlarge(heatmap, side)
    opacity = STRENGTH * np.abs(heat) / max(float(np.abs(heat).max()), 1e-12)  # a heatmap of zeros colours nothing
    speaks_for = Image.fromarray((heat > 0).astype(np.uint8) * 255)
    # By Pillow, and hardly compressed: any other way takes ten times as long as the model.
    colours = Image.composite(Image.new("RGB", grey.size, FOR), Image.new("RGB", grey.size, AGAINST), speaks_for)
    blended = Image.composite(colours, grey.convert("RGB"), Image.fromarray((255 * opacity).astype(np.uint8)))
    return encode_png(np.asarray(blended), QUICK)


def place_scores(contract: ImageExplanation, contributions: NDArray[np.float32], array: NDArray[Any]) -> NDArray[Any]:
    """Contributions (rows, columns) to a label -> that of each pixel (pixels,)."""
    return enlarge(contributions, len(array)).ravel()


def random_places(
    pointed: NDArray[np.int64], array: NDArray[Any], generator: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """As many pixels as `pointed` (n,): `random` have the same shape, shifted, `scattered` are single ones."""
    size = len(array)
    down, right = generator.integers(size, size=2)
    rows, columns = np.divmod(pointed, size)
    return {
        "random": (rows + down) % size * size + (columns + right) % size,
        "scattered": generator.choice(size * size, len(pointed), replace=False),
    }


def delete_places(contract: ImageExplanation, array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """The image with the neutral colour at these pixels."""
    deleted = array.copy()
    deleted.reshape(-1, deleted.shape[-1])[places] = contract.neutral
    return deleted
