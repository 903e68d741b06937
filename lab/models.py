"""A family's params -> its network: pixels or token ids -> (batch, labels) logits; the CNNs are the core's own."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Generic, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from convoy.models import image_cnn, text_cnn
from convoy.models.image_input import Pixels
from convoy.models.text_input import WordVectors
from convoy.params import Section
from lab.layout import Family

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class ImageCnnParams(Section):
    """Channels of the convolutions, each of which halves the resolution."""

    channels: tuple[int, ...] = Field(min_length=1)
    learning_rate: float = Field(gt=0)


class TextCnnParams(Section):
    """Filters of each width in words."""

    filters: int = Field(ge=1)
    widths: tuple[int, ...] = Field(min_length=1)
    learning_rate: float = Field(gt=0)


class RecurrentParams(Section):
    """Units of the state."""

    units: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


class FeedForwardParams(Section):
    """Units of the hidden layers; none is logistic regression."""

    hidden: tuple[int, ...]
    learning_rate: float = Field(gt=0)


Cnn = TypeVar("Cnn", ImageCnnParams, TextCnnParams)


class Families(Section, Generic[Cnn]):
    """The section families.<task>: the size of each network, by which all cost about the same, and its peak rate."""

    cnn: Cnn
    lstm: RecurrentParams
    gru: RecurrentParams
    rnn: RecurrentParams
    mlp: FeedForwardParams
    linear: FeedForwardParams

    def of(self, family: Family) -> Cnn | RecurrentParams | FeedForwardParams:
        """The params of one family."""
        return cast(Cnn | RecurrentParams | FeedForwardParams, getattr(self, family))


class WordParams(Section):
    """Size of the word vectors, the window of words that they are learnt from, the dropout of all text networks."""

    embedding: int = Field(ge=1)
    context_window: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


def image_network(
    family: Family,
    params: ImageCnnParams | RecurrentParams | FeedForwardParams,
    dimensions: Mapping[str, int],
    labels: int,
) -> nn.Module:
    """An untrained network for images of `dimensions` size_px and channels."""
    size_px, channels = dimensions["size_px"], dimensions["channels"]
    if isinstance(params, ImageCnnParams):
        plain = image_cnn.NetworkParams(channels=params.channels, blocks=0, dropout=0, flip_averaging=False)
        return image_cnn.Network(plain, channels=channels, size_px=size_px, labels=labels)
    if isinstance(params, RecurrentParams):
        return RowReader(family, params.units, channels, size_px, labels)
    return nn.Sequential(Pixels(channels), nn.Flatten(), *layers(channels * size_px**2, params.hidden, labels))


def text_network(
    family: Family,
    params: TextCnnParams | RecurrentParams | FeedForwardParams,
    words: WordParams,
    dimensions: Mapping[str, int],
    labels: int,
) -> nn.Module:
    """An untrained network for texts of `dimensions` vocabulary, pad_id and positions, the tokens of the longest."""
    vocabulary, pad_id = dimensions["vocabulary"], dimensions["pad_id"]
    if isinstance(params, TextCnnParams):
        kim = text_cnn.NetworkParams(
            embedding=words.embedding,
            filters=params.filters,
            widths=params.widths,
            dropout=words.dropout,
            word_dropout=0,
            context_window=words.context_window,
        )
        return text_cnn.Network(kim, vocabulary=vocabulary, pad_id=pad_id, labels=labels)
    if family == "linear":
        return WordSum(vocabulary, pad_id, labels)
    vectors = WordVectors(vocabulary, words.embedding, pad_id, word_dropout=0, dropout=words.dropout)
    if isinstance(params, RecurrentParams):
        return WordReader(family, vectors, params.units, words, labels)
    return WordPlaces(vectors, dimensions["positions"], params.hidden, words, labels)


def layers(inputs: int, hidden: tuple[int, ...], labels: int) -> list[nn.Module]:
    """Linear layers with ReLU between them."""
    found: list[nn.Module] = []
    for before, after in pairwise([inputs, *hidden]):
        found += [nn.Linear(before, after), nn.ReLU()]
    return [*found, nn.Linear([inputs, *hidden][-1], labels)]


def recurrent_cell(family: str, inputs: int, units: int) -> nn.RNNBase:
    """One layer that reads in one direction, its weights begun as Keras does, which serves all three kinds well.

    Orthogonal from state to state (Saxe et al. 2014, arXiv:1312.6120), by Glorot from the inputs, an LSTM's forget
    gate open (Jozefowicz et al. 2015). torch's own start lets the gradient of an Elman network vanish at once.
    """
    cell = CELLS[family](inputs, units, batch_first=True)
    for name, weights in cell.named_parameters():
        if "weight_hh" in name:
            for gate in torch.split(weights.data, units):
                nn.init.orthogonal_(gate)
        elif "weight_ih" in name:
            nn.init.xavier_uniform_(weights)
        else:
            nn.init.zeros_(weights)
            if family == "lstm" and "bias_ih" in name:
                weights.data[units : 2 * units] = 1  # torch's order of gates: input, forget, cell, output
    return cell


class RowReader(nn.Module):
    """Reads an image row by row from the top; the last state alone answers."""

    def __init__(self, family: Family, units: int, channels: int, size_px: int, labels: int) -> None:
        super().__init__()
        self.pixels = Pixels(channels)
        self.cell = recurrent_cell(family, channels * size_px, units)
        self.classify = nn.Linear(units, labels)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, height, width, channels) uint8 -> (batch, labels) logits."""
        states, _ = self.cell(self.pixels(images).transpose(1, 2).flatten(2))  # (batch, height, units)
        logits: Tensor = self.classify(states[:, -1])
        return logits


class WordReader(nn.Module):
    """Reads a text word by word; the state after the last word alone answers: what it says was remembered."""

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
        self.classify = nn.Sequential(*layers(positions * words.embedding, hidden, labels))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end -> (batch, labels) logits; what is beyond its places is not seen."""
        room = nn.functional.pad(tokens, (0, max(0, self.positions - tokens.shape[1])), value=self.pad_id)
        logits: Tensor = self.classify(self.vectors(room[:, : self.positions]).flatten(1))
        return logits


class WordSum(nn.Module):
    """Logistic regression on the counts of words: a weight per word and label, nothing but additions."""

    def __init__(self, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__()
        self.weights = nn.Embedding(vocabulary, labels, padding_idx=pad_id)
        self.bias = nn.Parameter(torch.zeros(labels))
        nn.init.zeros_(self.weights.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, labels) logits."""
        logits: Tensor = self.weights(tokens).sum(dim=1) + self.bias
        return logits
