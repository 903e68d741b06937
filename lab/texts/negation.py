"""Sentences with `not` or `but` so many words before what they turn -> how much a network lets them turn it.

A bag of words adds up what each word says. What it cannot have is an interaction: that `not` makes `good` worse and
`bad` better, or that what stands after `but` counts for more than it would after `and`. Both are measured in logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy.core.params import Section

Score = Callable[[list[str]], NDArray[np.float64]]  # sentences (n,) -> logit of the good label less the bad one's


class NegationParams(Section):
    """The labels that stand for good and bad, words that say so, and sentences with places for them.

    `negated` and `plain` differ in one word, as do `contrast` and `joined`; `{fillers}` becomes so many neutral words
    as a distance says.
    """

    good_label: str
    bad_label: str
    good_words: tuple[str, ...] = Field(min_length=1)
    bad_words: tuple[str, ...] = Field(min_length=1)
    fillers: tuple[str, ...] = Field(min_length=1)
    negated: str
    plain: str
    contrast: str
    joined: str
    distances: tuple[int, ...] = Field(min_length=2)
    far: int = Field(ge=1)
    draws: int = Field(ge=1)
    seed: int


@dataclass(frozen=True)
class Item:
    """A good word, a bad word, and the fillers between."""

    good: str
    bad: str
    fillers: str


def items(params: NegationParams, distance: int) -> list[Item]:
    """Each good word with each bad one, `draws` times with other fillers."""
    generator = np.random.default_rng([params.seed, distance])
    return [
        Item(good, bad, "".join(f"{word} " for word in generator.choice(params.fillers, distance)))
        for good in params.good_words
        for bad in params.bad_words
        for _ in range(params.draws)
    ]


def negation(params: NegationParams, distance: int, score: Score) -> NDArray[np.float64]:
    """By item (n,): what `not` does to a bad word less what it does to a good one; 0 where it only adds up."""
    wanted = items(params, distance)

    def effect(word: Callable[[Item], str]) -> NDArray[np.float64]:
        negated, plain = (
            score([frame.format(fillers=item.fillers, word=word(item)) for item in wanted])
            for frame in (params.negated, params.plain)
        )
        return negated - plain

    return effect(lambda item: item.bad) - effect(lambda item: item.good)


def contrast(params: NegationParams, distance: int, score: Score) -> NDArray[np.float64]:
    """By item (n,): score of `bad but good` less that of `good but bad`, less the same with `and`.

    0 where `but` only adds up. `and` takes away what the two halves, which are about other things, weigh by themselves.
    """
    wanted = items(params, distance)
    good, bad = [item.good for item in wanted], [item.bad for item in wanted]

    def ends_well(frame: str) -> NDArray[np.float64]:
        def scored(first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
            parts = zip(wanted, first, second, strict=True)
            return score([frame.format(fillers=item.fillers, first=one, second=two) for item, one, two in parts])

        return scored(bad, good) - scored(good, bad)

    return ends_well(params.contrast) - ends_well(params.joined)
