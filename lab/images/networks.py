"""A family's params -> its network for images: uint8 pixels -> (batch, labels) logits; two kinds are Convoy's own."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.image.networks import cnn, mlp
from convoy.kinds.image.networks.layers.pixels import Pixels
from lab.layout import Family
from lab.learning.cells import recurrent_cell
from lab.learning.families import FeedForwardParams, RecurrentParams


class ImageCnnParams(Section):
    """Channels of the convolutions, each of which halves the resolution."""

    channels: tuple[int, ...] = Field(min_length=1)
    learning_rate: float = Field(gt=0)


ImageParams = ImageCnnParams | RecurrentParams | FeedForwardParams


def image_network(
    family: Family,
    params: ImageParams,
    dimensions: Mapping[str, int],
    labels: int,
) -> nn.Module:
    """An untrained network for images of `dimensions` size_px and channels."""
    size_px, channels = dimensions["size_px"], dimensions["channels"]
    if isinstance(params, ImageCnnParams):
        plain = cnn.NetworkParams(channels=params.channels, blocks=0, dropout=0, flip_averaging=False)
        return cnn.Network(plain, channels=channels, size_px=size_px, labels=labels)
    if isinstance(params, RecurrentParams):
        return RowReader(family, params.units, channels, size_px, labels)
    feed_forward = mlp.NetworkParams(hidden=params.hidden, dropout=0)
    return mlp.Network(feed_forward, channels=channels, size_px=size_px, labels=labels)


class RowReader(nn.Module):
    """Reads an image row by row from the top; the last state alone answers.

    The networks that Convoy serves read from both ends and pool the states: who pools need not remember.
    """

    def __init__(self, family: Family, units: int, channels: int, size_px: int, labels: int) -> None:
        super().__init__()
        self.pixels = Pixels(channels)
        self.cell = recurrent_cell(family, channels * size_px, units)
        self.classify = nn.Linear(units, labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels) logits."""
        states, _ = self.cell(self.pixels(images).transpose(1, 2).flatten(2))  # (batch, height, units)
        logits: Tensor = self.classify(states[:, -1])
        return logits
