"""A family's params -> its network for texts: token ids -> (batch, labels) logits; the CNN is Convoy's own."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.text.networks import cnn
from convoy.kinds.text.networks.layers.vectors import WordVectors
from lab.layout import Family
from lab.learning.cells import recurrent_cell
from lab.learning.families import FeedForwardParams, RecurrentParams


class TextCnnParams(Section):
    """Filters of each width in words."""

    filters: int = Field(ge=1)
    widths: tuple[int, ...] = Field(min_length=1)
    learning_rate: float = Field(gt=0)


class WordParams(Section):
    """Size of the word vectors, the window of words that they are learnt from, the dropout of all text networks."""

    embedding: int = Field(ge=1)
    context_window: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


TextParams = TextCnnParams | RecurrentParams | FeedForwardParams


def text_network(
    family: Family,
    params: TextParams,
    words: WordParams,
    dimensions: Mapping[str, int],
    labels: int,
) -> nn.Module:
    """An untrained network for texts of `dimensions` vocabulary, pad_id and positions, the tokens of the longest."""
    vocabulary, pad_id = dimensions["vocabulary"], dimensions["pad_id"]
    if isinstance(params, TextCnnParams):
        kim = cnn.NetworkParams(
            embedding=words.embedding,
            filters=params.filters,
            widths=params.widths,
            dropout=words.dropout,
            context_window=words.context_window,
        )
        return cnn.Network(kim, vocabulary=vocabulary, pad_id=pad_id, labels=labels)
    if family == "linear":
        return WordSum(vocabulary, pad_id, labels)
    vectors = WordVectors(vocabulary, words.embedding, pad_id, words.dropout)
    if isinstance(params, RecurrentParams):
        return WordReader(family, vectors, params.units, words, labels)
    return WordPlaces(vectors, dimensions["positions"], params.hidden, words, labels)


class WordReader(nn.Module):
    """Reads a text word by word; the state after the last word alone answers: what it says was remembered.

    The networks that Convoy serves read from both ends and pool the states: who pools need not remember.
    """

    def __init__(self, family: Family, vectors: WordVectors, units: int, words: WordParams, labels: int) -> None:
        super().__init__()
        self.vectors, self.pad_id = vectors, int(vectors.embed.padding_idx or 0)
        self.cell = recurrent_cell(family, words.embedding, units)
        self.dropout = nn.Dropout(words.dropout)
        self.classify = nn.Linear(units, labels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end, at least one word each -> (batch, labels) logits."""
        states, _ = self.cell(self.vectors(tokens))  # (batch, tokens, units)
        last = tokens.ne(self.pad_id).sum(dim=1) - 1
        after_last_word = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
        logits: Tensor = self.classify(self.dropout(after_last_word))
        return logits


class WordPlaces(nn.Module):
    """A feed-forward network: each place of the text has weights of its own, nothing is shared over time."""

    def __init__(
        self, vectors: WordVectors, positions: int, hidden: tuple[int, ...], words: WordParams, labels: int
    ) -> None:
        super().__init__()
        self.vectors, self.pad_id, self.positions = vectors, int(vectors.embed.padding_idx or 0), positions
        widths = [positions * words.embedding, *hidden]
        steps: list[nn.Module] = []
        for before, after in pairwise(widths):
            steps += [nn.Linear(before, after), nn.ReLU()]
        self.classify = nn.Sequential(*steps, nn.Linear(widths[-1], labels))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end -> (batch, labels) logits; what is beyond its places is not seen."""
        room = nn.functional.pad(tokens, (0, max(0, self.positions - tokens.shape[1])), value=self.pad_id)
        logits: Tensor = self.classify(self.vectors(room[:, : self.positions]).flatten(1))
        return logits


class WordSum(nn.Module):
    """Logistic regression on the counts of words: a weight per word and label, nothing but additions.

    Convoy's `ngrams` knows pairs of words too, so that order is something to it.
    """

    def __init__(self, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__()
        self.weights = nn.Embedding(vocabulary, labels, padding_idx=pad_id)
        self.bias = nn.Parameter(torch.zeros(labels))
        nn.init.zeros_(self.weights.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, labels) logits."""
        logits: Tensor = self.weights(tokens).sum(dim=1) + self.bias
        return logits
