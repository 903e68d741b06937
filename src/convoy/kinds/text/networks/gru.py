"""A GRU that reads a text forwards and one that reads it backwards: token ids -> (batch, labels) logits."""

from torch import nn

from convoy.kinds.text.networks.layers.two_way import Reader, ReaderParams


class NetworkParams(ReaderParams):
    """Size of the word vectors, units per direction, dropout, and from how many words around the vectors are learnt."""


class Network(Reader):
    """Two gates instead of the LSTM's three, and no cell state (Cho et al. 2014, arXiv:1406.1078)."""

    def __init__(self, params: NetworkParams, *, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__(nn.GRU, params, vocabulary, pad_id, labels, params.context_window)
