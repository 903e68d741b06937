"""A GRU that reads an image row by row: uint8 pixels -> (batch, labels) logits."""

from torch import nn

from convoy.kinds.image.networks.layers.rows import RowNetwork, RowParams


class NetworkParams(RowParams):
    """Units per direction, and dropout before the last layer."""


class Network(RowNetwork):
    """Two gates instead of the LSTM's three, and no cell state (Cho et al. 2014, arXiv:1406.1078)."""

    def __init__(self, params: NetworkParams, *, channels: int, size_px: int, labels: int) -> None:
        super().__init__(nn.GRU, params, channels, size_px, labels)
