"""An Elman network that reads an image row by row: uint8 pixels -> (batch, labels) logits."""

from convoy.kinds.image.networks.layers.rows import RowNetwork, RowParams
from convoy.kinds.learning.recurrence import ElmanLayer


class NetworkParams(RowParams):
    """Units per direction, and dropout before the last layer."""


class Network(RowNetwork):
    """Recurrence without gates: each state is made of the row and of the state before, and nothing protects it."""

    def __init__(self, params: NetworkParams, *, channels: int, size_px: int, labels: int) -> None:
        super().__init__(ElmanLayer, params, channels, size_px, labels)
