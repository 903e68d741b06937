"""What explains a text -> what each of its words and phrases adds, and what the model thinks after each word."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.predictor import Model


class Phrase(NamedTuple):
    """The words `first` up to, without, `stop`, and what they add together."""

    first: int
    stop: int
    contribution: float


def add_by_word(found: NDArray[np.float32], widths: Sequence[int]) -> NDArray[np.float64]:
    """Contributions (widths, words) of phrases, each at its first word -> (words,), with the same sum.

    A phrase's is shared equally among its words; one that begins near the end has no more than are left.
    """
    words = found.shape[1]
    total = np.zeros(words)
    for row, width in zip(found, widths, strict=True):
        shared = row / np.minimum(width, words - np.arange(words))
        for offset in range(min(width, words)):
            total[offset:] += shared[: words - offset]
    return total


def strongest_phrases(found: NDArray[np.float32], widths: Sequence[int], most: int) -> list[Phrase]:
    """Contributions (widths, words) -> the phrases that add most, for the label or against it, the strongest first.

    None where a place of the network is a single word: the words themselves tell it all.
    """
    if max(widths) == 1:
        return []
    words = found.shape[1]
    added: dict[tuple[int, int], float] = {}
    for row, width in zip(found, widths, strict=True):
        for first in np.flatnonzero(row).tolist():
            span = first, min(first + width, words)  # near the end several widths are the same words
            added[span] = added.get(span, 0.0) + float(row[first])
    strongest = sorted(added.items(), key=lambda item: -abs(item[1]))[:most]
    return [Phrase(first, stop, contribution) for (first, stop), contribution in strongest]


def read_on(model: Model, tokens: NDArray[Any], most: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids (words,) -> the places (n,) of at most `most` words, and the probabilities (n, labels) after each.

    As if the text ended there. Where there are more words they are evenly spaced; the last one is always among them.
    """
    places = np.linspace(0, len(tokens) - 1, min(most, len(tokens))).round().astype(np.int64)
    return places, model.probabilities([tokens[: place + 1] for place in places])
