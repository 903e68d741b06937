"""A feed-forward network: every pixel has a weight of its own to every unit, so that it knows nothing of space."""

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.image.networks.layers.pixels import Pixels


class NetworkParams(Section):
    """Units of each hidden layer, none for a linear model; dropout after each."""

    hidden: tuple[int, ...]
    dropout: float = Field(ge=0, lt=1)


class Network(nn.Module):
    """Linear layers with rectifiers; the same pixels in any other order would be learnt as well."""

    def __init__(self, params: NetworkParams, *, channels: int, size_px: int, labels: int) -> None:
        super().__init__()
        self.pixels = Pixels(channels)
        widths = [channels * size_px * size_px, *params.hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(params.dropout)]
        self.hidden = nn.Sequential(*layers)
        self.classify = nn.Linear(widths[-1], labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels) logits."""
        logits: Tensor = self.classify(self.hidden(self.pixels(images).flatten(1)))
        return logits
