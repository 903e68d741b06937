"""A recurrent layer that reads a text forwards and one that reads it backwards: what lstm, gru and rnn share."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.learning.class_activation import PlaceNetwork, contribute, spread_greatest
from convoy.kinds.learning.recurrence import Layer
from convoy.kinds.text.networks.layers.vectors import PairParams, PairVectors, WordVectors


class ReaderParams(Section):
    """Size of the word vectors, units per direction, dropout.

    The vectors are learnt first from words up to `context_window` apart in the training texts; 0: they are random.
    """

    embedding: int = Field(ge=1)
    units: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    context_window: int = Field(ge=0)


class Reader(PlaceNetwork):
    """Two one-directional layers whose states are pooled over the words of the text, padding left out.

    A bidirectional layer over padded texts reads the padding first, so that an answer would depend on what else is
    in the batch. Here the backward one reads the words reversed within the text's own length; padding always
    comes last, where it cannot reach any word's state, and the pooling masks it.
    """

    def __init__(
        self,
        layer: Layer,
        params: Any,  # with the fields embedding, units and dropout
        vocabulary: int,
        pad_id: int,
        labels: int,
        window: int,
        pairs: PairParams | None = None,
    ) -> None:
        super().__init__()
        self.pad_id, self.context_window = pad_id, window
        self.vectors = WordVectors(vocabulary, params.embedding, pad_id, params.dropout)
        self.pairs = PairVectors(pairs, vocabulary, params.embedding, pad_id) if pairs else None
        self.forwards = layer(params.embedding, params.units, batch_first=True)
        self.backwards = layer(params.embedding, params.units, batch_first=True)
        self.dropout = nn.Dropout(params.dropout)
        self.classify = nn.Linear(4 * params.units, labels)

    def pretrain(self, texts: Sequence[NDArray[Any]], labels: NDArray[Any], seed: int) -> None:
        """Learn the word vectors from the training texts, without labels, and find the frequent pairs."""
        self.vectors.learn(texts, self.context_window, seed)
        if self.pairs is not None:
            self.pairs.learn(texts)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end, at least one word each -> (batch, labels) logits."""
        words = tokens != self.pad_id
        forward_states, backward_states, _ = self._read(tokens, words)
        states = torch.cat([forward_states, backward_states], dim=2)  # (batch, tokens, 2 * units)
        mask = words.unsqueeze(2)
        greatest = states.masked_fill(~mask, float("-inf")).amax(dim=1)
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        logits: Tensor = self.classify(self.dropout(torch.cat([greatest, mean], dim=1)))
        return logits

    def contributions(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, labels, 1, tokens): what the states at a word add to each logit."""
        words = tokens != self.pad_id
        forward_states, backward_states, order = self._read(tokens, words)
        states = torch.cat([forward_states, _gather_vectors(backward_states, order)], dim=2)
        states = states.transpose(1, 2)  # (batch, 2 * units, tokens)
        mask = words.unsqueeze(1)
        greatest = spread_greatest(states.masked_fill(~mask, float("-inf")))
        return contribute(self.classify, greatest, states * mask / mask.sum(dim=2, keepdim=True)).unsqueeze(2)

    def bias(self) -> Tensor:
        """(labels,): what no place adds."""
        return self.classify.bias

    def added_vectors(self, tokens: Tensor) -> Tensor | None:
        """The vectors that are added to the words' own, (batch, tokens, embedding); None: nothing."""
        return None if self.pairs is None else self.pairs(tokens)

    def _read(self, tokens: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states after each word, (batch, tokens, units), of both layers; the order in which the second reads."""
        added = self.added_vectors(tokens)
        order = _reversed_positions(words)
        forward_states, _ = self.forwards(self.vectors(tokens, added))
        reversed_added = None if added is None else _gather_vectors(added, order)
        backward_states, _ = self.backwards(self.vectors(tokens.gather(1, order), reversed_added))
        return forward_states, backward_states, order


def _gather_vectors(vectors: Tensor, places: Tensor) -> Tensor:
    """Of (batch, tokens, size) the vectors at (batch, tokens) places."""
    return vectors.gather(1, places.unsqueeze(2).expand(vectors.shape))


def _reversed_positions(words: Tensor) -> Tensor:
    """(batch, tokens) bool, True on words -> for each place the place to read: words reversed, padding kept."""
    places = torch.arange(words.shape[1], device=words.device).expand(words.shape)
    lengths = words.sum(dim=1, keepdim=True)
    return torch.where(words, lengths - 1 - places, places)
