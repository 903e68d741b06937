"""The section families of lab/params.yaml: how large the networks of a task are, and their peak learning rates."""

from itertools import pairwise
from typing import Generic, TypeVar, cast

from pydantic import Field
from torch import nn

from convoy.core.params import Section
from lab.layout import Family

Cnn = TypeVar("Cnn", bound=Section)


class RecurrentParams(Section):
    """Units of the state."""

    units: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


class FeedForwardParams(Section):
    """Units of the hidden layers; none is logistic regression."""

    hidden: tuple[int, ...]
    learning_rate: float = Field(gt=0)


class Families(Section, Generic[Cnn]):
    """The section families.<task>: the size of each network, by which all cost about the same, and its peak rate."""

    cnn: Cnn
    lstm: RecurrentParams
    gru: RecurrentParams
    rnn: RecurrentParams
    mlp: FeedForwardParams
    linear: FeedForwardParams

    def of(self, family: Family) -> Cnn | RecurrentParams | FeedForwardParams:
        """The params of one family."""
        return cast(Cnn | RecurrentParams | FeedForwardParams, getattr(self, family))


def layers(inputs: int, hidden: tuple[int, ...], labels: int) -> list[nn.Module]:
    """Linear layers with ReLU between them."""
    found: list[nn.Module] = []
    for before, after in pairwise([inputs, *hidden]):
        found += [nn.Linear(before, after), nn.ReLU()]
    return [*found, nn.Linear([inputs, *hidden][-1], labels)]
