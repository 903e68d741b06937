"""How many items a prepared train split has -> which are learnt from and which are asked; no other split is read."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy.core.params import Section


class Share(Section):
    """The data set; how many items at most are learnt from, and how many at most are asked: of few data a quarter."""

    prepared: str
    learn: int = Field(ge=1)
    ask: int = Field(ge=1)


class DataParams(Section):
    """The section data: which items of the train split; a seed draws them."""

    seed: int
    image: Share
    text: Share


def divide(count: int, share: Share, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (learn,) and (ask,) of `count` items, drawn without overlap, each sorted."""
    order = np.random.default_rng(seed).permutation(count)
    asked = min(share.ask, count // 4)
    return np.sort(order[asked : asked + share.learn]), np.sort(order[:asked])
