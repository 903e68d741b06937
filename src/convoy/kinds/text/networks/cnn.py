"""A CNN over the one direction of text (Kim 2014, arXiv:1408.5882): token ids -> (batch, labels) logits."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.learning.class_activation import PlaceNetwork, spread_greatest
from convoy.kinds.text.networks.layers.vectors import WordVectors


class NetworkParams(Section):
    """Size of the word vectors, filters of each width in words, dropout.

    The vectors are learnt first from words up to `context_window` apart in the training texts; 0: they are random.
    """

    embedding: int = Field(ge=1)
    filters: int = Field(ge=1)
    widths: tuple[int, ...] = Field(min_length=1)
    dropout: float = Field(ge=0, lt=1)
    context_window: int = Field(ge=0)


class Network(PlaceNetwork):
    """Filters slide over neighbouring words, each finds its phrase wherever it stands; the best match counts.

    Padding has the zero vector and its windows are masked, so that it cannot change the answer.
    """

    def __init__(self, params: NetworkParams, *, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.context_window = params.context_window
        self.vectors = WordVectors(vocabulary, params.embedding, pad_id, params.dropout)
        self.widths = params.widths
        self.filters = nn.ModuleList(nn.Conv1d(params.embedding, params.filters, width) for width in params.widths)
        self.dropout = nn.Dropout(params.dropout)
        self.classify = nn.Linear(params.filters * len(params.widths), labels)

    def pretrain(self, texts: Sequence[NDArray[Any]], labels: NDArray[Any], seed: int) -> None:
        """Learn the word vectors from the training texts, without labels."""
        self.vectors.learn(texts, self.context_window, seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end, at least one word each -> (batch, labels) logits."""
        best = [matches.amax(dim=2).relu() for matches in self._match(tokens)]
        logits: Tensor = self.classify(self.dropout(torch.cat(best, dim=1)))
        return logits

    def contributions(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, labels, widths, tokens): a place is a window, named by its first word."""
        weights = self.classify.weight.chunk(len(self.widths), dim=1)  # as many filters of each width
        by_width = [
            weight @ spread_greatest(matches).relu()
            for weight, matches in zip(weights, self._match(tokens), strict=True)
        ]
        return torch.stack(by_width, dim=2)

    def bias(self) -> Tensor:
        """(labels,): what no place adds."""
        return self.classify.bias

    def _match(self, tokens: Tensor) -> Iterator[Tensor]:
        """For each width the match of each window and filter, (batch, filters, tokens); -inf where no word begins."""
        words = (tokens != self.pad_id).unsqueeze(1)  # (batch, 1, tokens)
        vectors = self.vectors(tokens).transpose(1, 2) * words
        for width, filters in zip(self.widths, self.filters, strict=True):
            # Zeros at the end, so that every word, the last too, starts a window of each width.
            matches = filters(nn.functional.pad(vectors, (0, width - 1)))
            yield matches.masked_fill(~words, float("-inf"))
