"""An LSTM that reads an image row by row: uint8 pixels -> (batch, labels) logits."""

from torch import nn

from convoy.kinds.image.networks.layers.rows import RowNetwork, RowParams


class NetworkParams(RowParams):
    """Units per direction, and dropout before the last layer."""


class Network(RowNetwork):
    """Its cell state carries what the rows above have shown, through gates (Hochreiter & Schmidhuber 1997)."""

    def __init__(self, params: NetworkParams, *, channels: int, size_px: int, labels: int) -> None:
        super().__init__(nn.LSTM, params, channels, size_px, labels)
