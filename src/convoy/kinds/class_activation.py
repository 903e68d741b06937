"""Features of places -> what each place adds to each logit, where one linear layer reads their maximum and mean."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

# Places whose features differ by no more than rounding share the maximum: a plain background, or rows that repeat, give
# equal features, and which of them comes out greatest would differ between processors.
ROUNDING = 1e-5


class PlaceNetwork(nn.Module, ABC):
    """A network whose logits are its bias and a sum over the places of its input, exactly.

    A class activation map (Zhou et al. 2016, arXiv:1512.04150), for the maximum over places as well as for their mean.
    """

    widths: tuple[int, ...] = (1,)  # of a text: how many words the places of each row are about

    @abstractmethod
    def contributions(self, inputs: Tensor) -> Tensor:
        """Inputs as `forward` takes them -> (batch, labels, rows, columns): what each place adds, in eval mode."""

    @abstractmethod
    def bias(self) -> Tensor:
        """(labels,): what no place adds."""


def spread_greatest(features: Tensor) -> Tensor:
    """(batch, features, places) -> the same: each feature's maximum at the places that have it, shared equally.

    At a place that does not count the features are -inf; at least one place of each input counts.
    """
    greatest = features.amax(dim=2, keepdim=True)
    has_it = (features >= greatest - ROUNDING * (1 + greatest.abs())).to(greatest.dtype)
    return greatest * has_it / has_it.sum(dim=2, keepdim=True)


def contribute(classify: nn.Linear, greatest: Tensor, mean: Tensor) -> Tensor:
    """Of (batch, features, places) each, as they are spread over the places -> (batch, labels, places).

    `classify` reads the features' maxima first, then their means; what it says is the sum over places and its bias.
    """
    return classify.weight @ torch.cat([greatest, mean], dim=1)
