"""A family's params -> its network for images: uint8 pixels -> (batch, labels) logits; the CNN is the core's own."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.image.networks import cnn
from convoy.kinds.image.networks.input_layer import Pixels
from lab.cells import recurrent_cell
from lab.families import FeedForwardParams, RecurrentParams, layers
from lab.layout import Family


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
    return nn.Sequential(Pixels(channels), nn.Flatten(), *layers(channels * size_px**2, params.hidden, labels))


class RowReader(nn.Module):
    """Reads an image row by row from the top; the last state alone answers."""

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
