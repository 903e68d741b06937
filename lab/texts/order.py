"""Texts as token ids -> the same texts shuffled, cut, or with a phrase put in: what is seen of time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy.core.params import Section

Tokens = NDArray[np.int32]  # (tokens,)
FIRST_WORD = 2  # after padding and the unknown word
PHRASE_WORDS = 3


class OrderParams(Section):
    """Windows of shuffling in words, lengths that texts are cut to, places of a phrase from 0 to 1, and more.

    `judged_window` and `judged_words` are those that verdicts are about. A phrase must stand in `phrase_texts` texts
    at least; `phrases` of them per label are put into `phrase_hosts` texts. Texts fall into `lengths` groups.
    """

    seed: int
    windows: tuple[int, ...] = Field(min_length=2)
    judged_window: int = Field(ge=2)
    kept_words: tuple[int, ...] = Field(min_length=2)
    judged_words: int = Field(ge=1)
    phrases: int = Field(ge=1)
    phrase_texts: int = Field(ge=1)
    phrase_hosts: int = Field(ge=1)
    places: tuple[float, ...] = Field(min_length=2)
    lengths: int = Field(ge=2)


def shuffle(texts: Sequence[Tokens], window: int, seed: int) -> list[Tokens]:
    """The words of each text in random order within windows of so many words; 0 is the whole text, 1 changes nothing.

    Each text begins its windows at a place of its own, so that no word is for ever first in one.
    """
    generator = np.random.default_rng(seed)
    found = []
    for text in texts:
        if window == 0:
            found.append(generator.permutation(text))
            continue
        group = (np.arange(len(text)) + generator.integers(window)) // window
        found.append(text[np.lexsort((generator.random(len(text)), group))])
    return found


def keep(texts: Sequence[Tokens], words: int, end: str) -> list[Tokens]:
    """The first (`front`) or the last (`back`) so many words of each text."""
    return [text[:words] if end == "front" else text[-words:] for text in texts]


def insert(text: Tokens, phrase: Tokens, place: float) -> Tokens:
    """A phrase in place of as many words, so that the length stays: 0 is the start, 1 the end of the text."""
    start = round(place * max(0, len(text) - len(phrase)))
    return np.concatenate([text[:start], phrase, text[start + len(phrase) :]]).astype(text.dtype)


@dataclass(frozen=True)
class Host:
    """The row of a text that gets a phrase, the phrase, and its label, which is not the text's own."""

    row: int
    phrase: Tokens
    label: int


def draw_hosts(
    learnt: tuple[Sequence[Tokens], NDArray[np.int64]], asked: NDArray[np.int64], labels: int, params: OrderParams
) -> list[Host]:
    """Of texts that are asked, with labels `asked` (n,), some, each with a key phrase of another label.

    The phrases are those of the texts and labels that were learnt from.
    """
    generator = np.random.default_rng(params.seed)
    phrases = [key_phrases(*learnt, label, params.phrases, params.phrase_texts) for label in range(labels)]
    found = []
    for row in np.sort(generator.permutation(len(asked))[: params.phrase_hosts]).tolist():
        label = int((asked[row] + generator.integers(1, labels)) % labels)
        if phrases[label]:
            found.append(Host(row, phrases[label][generator.integers(len(phrases[label]))], label))
    return found


def key_phrases(
    texts: Sequence[Tokens], labels: NDArray[np.int64], label: int, count: int, min_texts: int
) -> list[Tokens]:
    """The runs of three known words that stand most one-sidedly in texts of a label, the most one-sided first.

    One-sided is the logarithm of the odds of two shares of texts, each with one text added to either side (Monroe et
    al. 2008 do so with counts), less its own standard error, so that chance finds of rare phrases do not win.
    """
    base = 1 + max(int(text.max(initial=0)) for text in texts)
    with_it, without = (
        _texts_per_phrase([text for text, own in zip(texts, labels, strict=True) if (own == label) == same], base)
        for same in (True, False)
    )
    inside, outside = int((labels == label).sum()), int((labels != label).sum())
    scores = {}
    for phrase, number in with_it.items():
        other = without.get(phrase, 0)
        if number >= min_texts:
            a, b = number + 1, other + 1
            odds = np.log(a / (inside + 2)) - np.log(b / (outside + 2))
            scores[phrase] = odds - np.sqrt(1 / a + 1 / b)
    best = sorted(scores, key=lambda phrase: (-scores[phrase], phrase))[:count]
    return [np.array([each // base**2, each // base % base, each % base], dtype=np.int32) for each in best]


def _texts_per_phrase(texts: Sequence[Tokens], base: int) -> dict[int, int]:
    """Phrase as one number -> how many texts hold it; phrases with an unknown word are left out."""
    parts = [np.zeros(0, np.int64)]
    for text in texts:
        if len(text) >= PHRASE_WORDS:
            wide = text.astype(np.int64)
            phrases = (wide[:-2] * base + wide[1:-1]) * base + wide[2:]
            known = np.minimum(np.minimum(wide[:-2], wide[1:-1]), wide[2:]) >= FIRST_WORD
            parts.append(np.unique(phrases[known]))
    found, counts = np.unique(np.concatenate(parts), return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def length_groups(texts: Sequence[Tokens], groups: int) -> tuple[NDArray[np.int64], list[float]]:
    """The group (n,) of each text by its length, groups of about the same size, and the mean length of each.

    Texts of one length stay together, so that a group may be empty and left out.
    """
    lengths = np.array([len(text) for text in texts])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, groups + 1)[1:-1]))
    raw = np.searchsorted(edges, lengths, side="left")
    kinds, group = np.unique(raw, return_inverse=True)
    return group.astype(np.int64), [float(lengths[group == index].mean()) for index in range(len(kinds))]
