"""Features of places -> what each place adds to each logit of a linear layer over their maximum and mean."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

# Places whose features differ by no more than rounding share the maximum: a plain background or repeated rows give
# equal features, and which of them is the greatest would depend on the processor. Further below, a place's share falls
# to nothing over FADE: were it to end at once, whether a place at that very distance has one would depend on it too.
ROUNDING = 1e-5
FADE = 1e-3


class PlaceNetwork(nn.Module, ABC):
    """A network whose logits are its bias and a sum over the places of its input, exactly.

    A class activation map (Zhou et al. 2016, arXiv:1512.04150), for the maximum over places as well as for their mean.
    """

    widths: tuple[int, ...] = (1,)  # of a text: how many words a place in each row covers

    @abstractmethod
    def contributions(self, inputs: Tensor) -> Tensor:
        """Inputs as `forward` takes them -> (batch, labels, rows, columns): what each place adds, in eval mode."""

    @abstractmethod
    def bias(self) -> Tensor:
        """(labels,): what no place adds."""


def spread_greatest(features: Tensor) -> Tensor:
    """(batch, features, places) -> the same: each feature's maximum, shared by the places that reach it.

    At a place that does not count the features are -inf; at least one place of each input counts.
    """
    greatest = features.amax(dim=2, keepdim=True)
    below = (greatest - features) / (1 + greatest.abs())
    share = ((ROUNDING + FADE - below) / FADE).clamp(0, 1)
    return greatest * share / share.sum(dim=2, keepdim=True)


def contribute(classify: nn.Linear, greatest: Tensor, mean: Tensor) -> Tensor:
    """Maxima and means spread over the places, (batch, features, places) each -> (batch, labels, places).

    `classify` reads the features' maxima first, then their means; its output is the sum over the places and its bias.
    """
    return classify.weight @ torch.cat([greatest, mean], dim=1)
