"""explanation.onnx of a bundle -> what each place, word or phrase of an input adds to each logit; onnxruntime alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoy.bundles.bundle import EXPLANATION, BundleInvalid, ImageExplanation, read_file
from convoy.bundles.predictor import Model, Predictor, open_session
from convoy.core.png import QUICK, encode_png

OUTPUTS = ["contributions", "logits"]
OVERLAY_PX = 224  # side of a picture, at most: 28 pixels eight times as large
STRENGTH = 0.7  # the opacity of the colour where the heatmap is strongest
# Orange speaks for the label, blue against it: two colours that most of the colour-blind tell apart.
FOR, AGAINST = (255, 120, 0), (0, 90, 255)


@dataclass(frozen=True)
class Explained:
    """One input: probabilities (labels,), and the sum that they are the softmax of.

    For each label `bias` (labels,) and all places of `contributions` (labels, rows, columns) add up to its logit,
    divided by the temperature and relative to the mean of the labels: above 0 speaks for a label, more than for others.
    An image has rows and columns of places; a text has its words as columns, and a row per width of phrase.
    """

    probabilities: NDArray[np.float32]
    contributions: NDArray[np.float32]
    bias: NDArray[np.float32]


class Phrase(NamedTuple):
    """The words `first` up to, without, `stop`, and what they add together."""

    first: int
    stop: int
    contribution: float


class Explainer:
    """The session of explanation.onnx, beside the model that it explains."""

    def __init__(self, model: Model, content: bytes, threads: int = 1) -> None:
        """Raises BundleInvalid where `content` is no graph that explains."""
        self.model = model
        self._session = open_session(EXPLANATION, content, threads)
        outputs = [output.name for output in self._session.get_outputs()]
        if outputs != OUTPUTS or len(self._session.get_inputs()) != 1:
            raise BundleInvalid(f"{EXPLANATION} has outputs {outputs}, {OUTPUTS} are expected; export the bundle again")
        self._input_name: str = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One collated batch -> contributions (batch, labels, rows, columns) and logits (batch, labels)."""
        contributions, logits = self._session.run(OUTPUTS, {self._input_name: batch})
        return contributions, logits

    def explain(self, array: NDArray[Any]) -> Explained:
        """Explain one prepared input. Raises ValueError where the model gives NaN or infinity."""
        (contributions,), (logits,) = self.run(self.model.preprocessor.collate([array]))
        if not (np.isfinite(contributions).all() and np.isfinite(logits).all()):
            raise ValueError("the model gave a contribution that is no number")
        return Explained(softmax(logits), contributions, logits - contributions.sum(axis=(1, 2)))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (..., labels) -> probabilities."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def open_explainer(predictor: Predictor, threads: int = 1) -> Explainer | None:
    """Load the explainer of a predictor, only when it is needed; None where its bundle has none.

    Raises BundleInvalid where the folder by now holds another bundle than the one of the predictor.
    """
    if predictor.card.explanation is None:
        return None
    content = read_file(predictor.folder, EXPLANATION, predictor.digest)
    return None if content is None else Explainer(predictor, content, threads)


def occlude(
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
    original, *occluded = model.probabilities(images)
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


def word_contributions(contributions: NDArray[np.float32], widths: Sequence[int]) -> NDArray[np.float64]:
    """Contributions (widths, words) of phrases, each at its first word -> (words,), with the same sum.

    A phrase's contribution is shared equally among its words; near the end it has only the words that are left.
    """
    words = contributions.shape[1]
    total = np.zeros(words)
    for row, width in zip(contributions, widths, strict=True):
        shared = row / np.minimum(width, words - np.arange(words))
        for offset in range(min(width, words)):
            total[offset:] += shared[: words - offset]
    return total


def strongest_phrases(contributions: NDArray[np.float32], widths: Sequence[int], most: int) -> list[Phrase]:
    """Contributions (widths, words) -> the phrases that add most, for the label or against it, the strongest first.

    The list is empty where each place of the network is a single word: the words themselves are the explanation.
    """
    if max(widths) == 1:
        return []
    words = contributions.shape[1]
    added: dict[tuple[int, int], float] = {}
    for row, width in zip(contributions, widths, strict=True):
        for first in np.flatnonzero(row).tolist():
            span = first, min(first + width, words)  # near the end several widths are the same words
            added[span] = added.get(span, 0.0) + float(row[first])
    strongest = sorted(added.items(), key=lambda item: -abs(item[1]))[:most]
    return [Phrase(first, stop, contribution) for (first, stop), contribution in strongest]


def probabilities_while_reading(
    model: Model, tokens: NDArray[Any], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids (words,) -> the places (n,) of at most `most` words, and the probabilities (n, labels) after each.

    As if the text ended there. Where there are more words they are evenly spaced; the last one is always among them.
    """
    places = np.linspace(0, len(tokens) - 1, min(most, len(tokens))).round().astype(np.int64)
    return places, model.probabilities([tokens[: place + 1] for place in places])
