"""A CNN over the two directions of space: (batch, height, width, channels) uint8 -> (batch, labels) logits."""

import torch
from pydantic import Field
from torch import Tensor, nn

from convoy.models.image_input import Pixels
from convoy.params import Section


class NetworkParams(Section):
    """Channels of the three convolutions, and dropout before the last layer."""

    channels: tuple[int, int, int]
    dropout: float = Field(ge=0, lt=1)


class Network(nn.Module):
    """Three 3x3 convolutions with batch normalisation; the same weights look at every place of the image.

    Pooling halves the resolution twice; what is left is summed up by its maximum and its mean over all places,
    so that no weight depends on `size_px`: the same network takes images of any size.
    """

    def __init__(self, params: NetworkParams, *, channels: int, size_px: int, labels: int) -> None:
        super().__init__()
        first, second, third = params.channels
        self.pixels = Pixels(channels)
        self.features = nn.Sequential(
            _convolution(channels, first),
            nn.MaxPool2d(2),
            _convolution(first, second),
            nn.MaxPool2d(2),
            _convolution(second, third),
        )
        self.dropout = nn.Dropout(params.dropout)
        self.classify = nn.Linear(2 * third, labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels) logits."""
        features = self.features(self.pixels(images))  # (batch, third, height / 4, width / 4)
        summary = torch.cat([features.amax(dim=(2, 3)), features.mean(dim=(2, 3))], dim=1)
        logits: Tensor = self.classify(self.dropout(summary))
        return logits


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
