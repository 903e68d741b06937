"""What explains an image -> a map of its places, found without the network's inside where asked for, and a picture."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoy.bundles.bundle import ImageExplanation
from convoy.bundles.predictor import Model
from convoy.core.png import QUICK, encode_png

OVERLAY_PX = 224  # side of a picture, at most: 28 pixels eight times as large
STRENGTH = 0.7  # how much of the picture the colour takes where the map is strongest
# Orange speaks for the label, blue against it: two colours that most of the colour-blind tell apart.
FOR, AGAINST = (255, 120, 0), (0, 90, 255)


def fall_where_covered(
    model: Model, contract: ImageExplanation, pixels: NDArray[np.uint8]
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
    whole, *rest = model.probabilities(images)
    falls = whole[:, np.newaxis] - np.stack(rest, axis=1)
    return whole, falls.reshape(len(whole), contract.patches, contract.patches)


def enlarge(found: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
    """A map (rows, columns) -> (size_px, size_px), straight lines between the middles of its places."""
    image = Image.fromarray(np.ascontiguousarray(found, dtype=np.float32))
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def draw_overlay(pixels: NDArray[np.uint8], found: NDArray[np.float32]) -> bytes:
    """The image (size, size, channels) in grey with the map (rows, columns) over it in colours, as a PNG."""
    size = len(pixels)
    side = max(OVERLAY_PX // size, 1) * size if size <= OVERLAY_PX else OVERLAY_PX
    image = Image.fromarray(pixels.squeeze()).convert("L")
    # What is enlarged keeps its pixels: they are what the model saw.
    grey = image.resize((side, side), Image.Resampling.NEAREST if side >= size else Image.Resampling.LANCZOS)
    heat = enlarge(found, side)
    opacity = STRENGTH * np.abs(heat) / max(float(np.abs(heat).max()), 1e-12)  # a map of zeros colours nothing
    speaks_for = Image.fromarray((heat > 0).astype(np.uint8) * 255)
    # By Pillow, and hardly compressed: all else takes ten times as long as the model.
    colours = Image.composite(Image.new("RGB", grey.size, FOR), Image.new("RGB", grey.size, AGAINST), speaks_for)
    blended = Image.composite(colours, grey.convert("RGB"), Image.fromarray((255 * opacity).astype(np.uint8)))
    return encode_png(np.asarray(blended), QUICK)
