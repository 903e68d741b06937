"""An Elman network that reads a text forwards and one that reads it backwards: token ids -> (batch, labels) logits."""

from convoy.kinds.learning.recurrence import ElmanLayer
from convoy.kinds.text.networks.layers.two_way import Reader, ReaderParams


class NetworkParams(ReaderParams):
    """Size of the word vectors, units per direction, dropout, and from how many words around the vectors are learnt."""


class Network(Reader):
    """Recurrence without gates: each state is made of the word and of the state before, and nothing protects it."""

    def __init__(self, params: NetworkParams, *, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__(ElmanLayer, params, vocabulary, pad_id, labels, params.context_window)
