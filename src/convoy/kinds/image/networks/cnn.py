"""A CNN over the two directions of space: (batch, height, width, channels) uint8 -> (batch, labels) logits."""

import torch
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.image.networks.layers.pixels import Pixels
from convoy.kinds.learning.class_activation import PlaceNetwork, contribute, spread_greatest


class NetworkParams(Section):
    """Channels of each stage, residual blocks in each, dropout before the last layer; whether mirror images count too.

    With `flip_averaging` the answer to an image is the mean of the logits of it and of its mirror image.
    """

    channels: tuple[int, ...] = Field(min_length=1)
    blocks: int = Field(ge=0)
    dropout: float = Field(ge=0, lt=1)
    flip_averaging: bool


class Network(PlaceNetwork):
    """A small residual network (He et al. 2016, arXiv:1512.03385); the same weights read every place of the image.

    Each stage halves the resolution by a convolution of stride 2 and refines the features in residual blocks. Their
    maximum and mean over all places sum them up, so that no weight depends on `size_px`: the same
    network takes images of any size.
    """

    def __init__(self, params: NetworkParams, *, channels: int, size_px: int, labels: int) -> None:
        super().__init__()
        self.flip_averaging = params.flip_averaging
        self.pixels = Pixels(channels)
        stages: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(zip((channels, *params.channels), params.channels, strict=False)):
            # The first kernel is 4 wide, so that each pixel counts for as many places as any other.
            halve = nn.Conv2d(inputs, outputs, kernel_size=3 if index else 4, stride=2, padding=1, bias=False)
            stages += [halve, nn.BatchNorm2d(outputs), nn.ReLU()]
            stages += [ResidualBlock(outputs) for _ in range(params.blocks)]
        self.features = nn.Sequential(*stages)
        self.dropout = nn.Dropout(params.dropout)
        self.classify = nn.Linear(2 * params.channels[-1], labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels) logits."""
        if self.training or not self.flip_averaging:
            return self._compute_logits(images)
        return (self._compute_logits(images) + self._compute_logits(images.flip(2))) / 2

    def _compute_logits(self, images: Tensor) -> Tensor:
        features = self.features(self.pixels(images))  # (batch, channels of the last stage, height, width)
        summary = torch.cat([features.amax(dim=(2, 3)), features.mean(dim=(2, 3))], dim=1)
        logits: Tensor = self.classify(self.dropout(summary))
        return logits

    def contributions(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels, rows, columns), a place of the last stage each."""
        if not self.flip_averaging:
            return self._contribute(images)
        return (self._contribute(images) + self._contribute(images.flip(2)).flip(3)) / 2

    def bias(self) -> Tensor:
        """(labels,): what no place adds."""
        return self.classify.bias

    def _contribute(self, images: Tensor) -> Tensor:
        features = self.features(self.pixels(images))
        places = features.flatten(2)
        contributions = contribute(self.classify, spread_greatest(places), places / places.shape[2])
        return contributions.reshape(*contributions.shape[:2], *features.shape[2:])


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to their input; at the start they add nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        last = self.change[-1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.zeros_(last.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same."""
        refined: Tensor = (features + self.change(features)).relu()
        return refined
