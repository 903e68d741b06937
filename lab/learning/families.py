"""The section families of lab/params.yaml: how large the networks of a kind of data are, and their peak rates."""

from typing import Generic, TypeVar, cast

from pydantic import Field

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
    """The section families.<kind>: the size of each network, by which all cost about the same, and its peak rate."""

    cnn: Cnn
    lstm: RecurrentParams
    gru: RecurrentParams
    rnn: RecurrentParams
    mlp: FeedForwardParams
    linear: FeedForwardParams

    def of(self, family: Family) -> Cnn | RecurrentParams | FeedForwardParams:
        """The params of one family."""
        return cast(Cnn | RecurrentParams | FeedForwardParams, getattr(self, family))
