"""An LSTM that reads forwards only and carries its state: token ids -> logits, of a whole text or after each word."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.text.items.preprocessing import LONGEST_RUN
from convoy.kinds.text.networks.layers.vectors import WordVectors

NOTHING = float("-inf")  # below any value of a state


class NetworkParams(Section):
    """Size of the word vectors, units, dropout.

    The vectors are learnt first from words up to `context_window` apart in the training texts; 0: they are random.
    """

    embedding: int = Field(ge=1)
    units: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    context_window: int = Field(ge=0)


class Network(nn.Module):
    """One LSTM (Hochreiter & Schmidhuber 1997) whose states are pooled over the words so far: greatest value and mean.

    Both are updated word by word, as the LSTM's own state is, so that a text can be read in pieces: after each word
    `step` gives what `forward` gives for the text up to that word. It is trained by `forward` on whole texts.
    """

    def __init__(self, params: NetworkParams, *, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__()
        self.pad_id, self.units, self.context_window = pad_id, params.units, params.context_window
        self.vectors = WordVectors(vocabulary, params.embedding, pad_id, params.dropout)
        self.recurrent = nn.LSTM(params.embedding, params.units, batch_first=True)
        self.dropout = nn.Dropout(params.dropout)
        self.classify = nn.Linear(2 * params.units, labels)

    def pretrain(self, texts: Sequence[NDArray[Any]], labels: NDArray[Any], seed: int) -> None:
        """Learn the word vectors from the training texts, without labels."""
        self.vectors.learn(texts, self.context_window, seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end, at least one word each -> (batch, labels) logits."""
        words = (tokens != self.pad_id).unsqueeze(2)  # (batch, tokens, 1)
        states, _ = self.recurrent(self.vectors(tokens))  # (batch, tokens, units)
        greatest = states.masked_fill(~words, NOTHING).amax(dim=1)
        mean = (states * words).sum(dim=1) / words.sum(dim=1)
        logits: Tensor = self.classify(self.dropout(torch.cat([greatest, mean], dim=1)))
        return logits

    def begin(self, streams: int) -> Tensor:
        """The state before the first word: (streams, 4 * units + 1) zeros."""
        return torch.zeros(streams, 4 * self.units + 1)

    def step(self, tokens: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """(streams, words) int64 and the carried state -> (streams, words, labels) logits, and the state to carry on.

        At most LONGEST_RUN words. The state has the LSTM's hidden and cell state, the greatest value and the sum of
        its outputs so far, and the number of words. Padding at the end leaves the last three and the logits as they
        were, but not the LSTM's own state: after a padded run nothing can follow.
        """
        hidden, cell, greatest, total, count = torch.split(carried, [self.units] * 4 + [1], dim=1)
        words = (tokens != self.pad_id).unsqueeze(2)
        # (layers, streams, units); the exporter wants them laid out as what the LSTM returns.
        initial = (hidden.contiguous().unsqueeze(0), cell.contiguous().unsqueeze(0))
        states, (hidden, cell) = self.recurrent(self.vectors(tokens), initial)
        before = greatest.masked_fill(count == 0, NOTHING)
        so_far = _greatest_so_far(states.masked_fill(~words, NOTHING))
        maxima = torch.maximum(so_far, before.unsqueeze(1))
        totals = total.unsqueeze(1) + (states * words).cumsum(dim=1)
        counts = count.unsqueeze(1) + words.to(states.dtype).cumsum(dim=1)
        logits: Tensor = self.classify(torch.cat([maxima, totals / counts], dim=2))
        pools = [maxima[:, -1], totals[:, -1], counts[:, -1]]
        return logits, torch.cat([hidden.squeeze(0), cell.squeeze(0), *pools], dim=1)


def _greatest_so_far(values: Tensor) -> Tensor:
    """(streams, words, size) -> at each word the greatest of it and all before, for at most LONGEST_RUN words.

    It doubles its reach in each step (Hillis & Steele 1986): ONNX has a running sum and no running maximum.
    """
    reach = 1
    while reach < LONGEST_RUN:
        earlier = nn.functional.pad(values, (0, 0, reach, 0), value=NOTHING)[:, : values.shape[1]]
        values = torch.maximum(values, earlier)
        reach *= 2
    return values
