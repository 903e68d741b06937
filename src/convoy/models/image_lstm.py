"""An LSTM that reads an image row by row, as if it were time: uint8 pixels -> (batch, labels) logits."""

import torch
from pydantic import Field
from torch import Tensor, nn

from convoy.models.image_input import Pixels
from convoy.params import Section


class NetworkParams(Section):
    """Units per direction, and dropout before the last layer."""

    units: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


class Network(nn.Module):
    """Each row is one step, read from the top and from the bottom; the states are pooled over the rows."""

    def __init__(self, params: NetworkParams, *, channels: int, size_px: int, labels: int) -> None:
        super().__init__()
        self.pixels = Pixels(channels)
        self.lstm = nn.LSTM(channels * size_px, params.units, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(params.dropout)
        self.classify = nn.Linear(4 * params.units, labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels) logits."""
        rows = self.pixels(images).transpose(1, 2).flatten(2)  # (batch, height, channels * width)
        states, _ = self.lstm(rows)  # (batch, height, 2 * units)
        summary = torch.cat([states.amax(dim=1), states.mean(dim=1)], dim=1)
        logits: Tensor = self.classify(self.dropout(summary))
        return logits
