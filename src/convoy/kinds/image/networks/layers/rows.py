"""A recurrent layer that reads an image row by row, as if it were time: what lstm, gru and rnn have in common."""

import torch
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.image.networks.layers.pixels import Pixels
from convoy.kinds.learning.class_activation import PlaceNetwork, contribute, spread_greatest
from convoy.kinds.learning.recurrence import Layer


class RowParams(Section):
    """Units per direction, and dropout before the last layer."""

    units: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


class RowNetwork(PlaceNetwork):
    """Each row is one step, read from the top and from the bottom; the states are pooled over the rows."""

    def __init__(self, layer: Layer, params: RowParams, channels: int, size_px: int, labels: int) -> None:
        super().__init__()
        self.pixels = Pixels(channels)
        self.recurrent = layer(channels * size_px, params.units, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(params.dropout)
        self.classify = nn.Linear(4 * params.units, labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels) logits."""
        states = self._read(images)
        summary = torch.cat([states.amax(dim=1), states.mean(dim=1)], dim=1)
        logits: Tensor = self.classify(self.dropout(summary))
        return logits

    def contributions(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels, height, 1): a place is a whole row."""
        places = self._read(images).transpose(1, 2)
        return contribute(self.classify, spread_greatest(places), places / places.shape[2]).unsqueeze(3)

    def bias(self) -> Tensor:
        """(labels,): what no place adds."""
        return self.classify.bias

    def _read(self, images: Tensor) -> Tensor:
        rows = self.pixels(images).transpose(1, 2).flatten(2)  # (batch, height, channels * width)
        states: Tensor
        states, _ = self.recurrent(rows)  # (batch, height, 2 * units)
        return states
