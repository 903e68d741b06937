"""How a text is explained: what its words and phrases add, and the probabilities while it is read."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy.core.params import Section

OCCLUDED_GROUPS = 64  # two batches of the predictor
Probabilities = Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]  # prepared inputs -> (inputs, labels)


class Params(Section):
    """After how many words of a text a probability is told, and of how many of its phrases what they add."""

    max_prefixes: int = Field(ge=2)
    max_phrases: int = Field(ge=1)


class TextExplanation(Params):
    """How a text is explained; row i of what explanation.onnx says of it is about phrases of `widths[i]` words."""

    kind: Literal["text"]
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)


class Phrase(NamedTuple):
    """The words `first` up to, without, `stop`, and what they add together."""

    first: int
    stop: int
    contribution: float


def read(content: dict[str, Any]) -> TextExplanation:
    """The explanation section of a card."""
    return TextExplanation.model_validate(content)


def describe(params: Params, training_inputs: Callable[[], Any], widths: tuple[int, ...]) -> TextExplanation:
    """The explanation section of the card; `widths` are those of the network's phrases, in words."""
    return TextExplanation(kind="text", widths=widths, **params.model_dump())


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
    probabilities: Probabilities, tokens: NDArray[Any], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Token ids (words,) -> the places (n,) of at most `most` words, and the probabilities (n, labels) after each.

    As if the text ended there. Where there are more words they are evenly spaced; the last one is always among them.
    """
    places = np.linspace(0, len(tokens) - 1, min(most, len(tokens))).round().astype(np.int64)
    return places, probabilities([tokens[: place + 1] for place in places])


def occlude(
    probabilities: Probabilities, contract: TextExplanation, tokens: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Token ids (words,) -> probabilities (labels,), and by how much they fall without each word (labels, words).

    Occlusion (Zeiler & Fergus 2014, arXiv:1311.2901; Li et al. 2016, arXiv:1612.08220): words are left out, one after
    the other. Of a long text groups of neighbours are, at most OCCLUDED_GROUPS, and each word has an equal share of its
    group's fall. A text of one word has nothing to leave out.
    """
    groups = [group for group in np.array_split(np.arange(len(tokens)), OCCLUDED_GROUPS) if len(group)]
    inputs = [tokens, *(np.delete(tokens, group) for group in groups if len(tokens) > 1)]
    original, *without = probabilities(inputs)
    falls = np.zeros((len(original), len(tokens)))
    for group, left in zip(groups, without, strict=False):
        falls[:, group] = ((original - left) / len(group))[:, np.newaxis]
    return original, falls


def place_scores(contract: TextExplanation, contributions: NDArray[np.float32], array: NDArray[Any]) -> NDArray[Any]:
    """Contributions (widths, words) to a label -> that of each word (words,)."""
    return word_contributions(contributions, contract.widths)


def random_places(
    pointed: NDArray[np.int64], array: NDArray[Any], generator: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """As many words as `pointed` (n,)."""
    return {"random": generator.choice(len(array), len(pointed), replace=False)}


def delete_places(contract: TextExplanation, array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """The text without these words."""
    return np.delete(array, places)
