"""A linear model of words and pairs of words: token ids -> (batch, labels) logits, one Gather and one sum in ONNX."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.learning.class_activation import PlaceNetwork


class NetworkParams(Section):
    """Places of the table of pairs, what is added to each count, the share of words and pairs hidden in training."""

    places: int = Field(ge=1)
    smoothing: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)


class Network(PlaceNetwork):
    """Each word and each pair adds its own number to each logit, wherever it stands: no order but within a pair.

    NB-SVM (Wang & Manning 2012, aclanthology.org/P12-2018): the number is a weight times the log of how much more often
    the n-gram stands in texts of this label than in others. Pairs share the places of a table (feature hashing,
    Weinberger et al. 2009, arXiv:0902.2206); words have a place each. Unlike there every occurrence counts.
    """

    widths = (1, 2)  # of a place in words: the words, then the pairs

    def __init__(self, params: NetworkParams, *, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__()
        self.vocabulary, self.pad_id, self.places = vocabulary, pad_id, params.places
        self.smoothing, self.dropout = params.smoothing, params.dropout
        rows = vocabulary + params.places + 1
        self.weight = nn.Parameter(torch.zeros(rows, labels))
        self.offset = nn.Parameter(torch.zeros(labels))
        self.ratio: Tensor
        self.register_buffer("ratio", torch.zeros(rows, labels))
        self.table: Tensor  # their product, in eval mode
        self.register_buffer("table", torch.zeros(rows, labels), persistent=False)

    def pretrain(self, texts: Sequence[NDArray[Any]], labels: NDArray[Any], seed: int) -> None:
        """Count the n-grams of each label's texts (token ids each), and let all weights begin equal."""
        counts = np.zeros(self.ratio.shape)
        for text, label in zip(texts, labels, strict=True):
            rows = self._rows(torch.from_numpy(text.astype(np.int64))[None]).flatten().numpy()
            np.add.at(counts, (rows, label), 1)
        counts[self._nothing] = 0
        own = counts + self.smoothing
        other = counts.sum(axis=1, keepdims=True) - counts + self.smoothing
        ratio = np.log(own / own.sum(axis=0)) - np.log(other / other.sum(axis=0))
        ratio[self._nothing] = 0
        self.ratio.copy_(torch.from_numpy(ratio))
        # So that the logits of a text of middle length have a spread near 1 at first.
        mean_ngrams = counts.sum() / max(len(texts), 1)
        with torch.no_grad():
            self.weight.fill_(1 / max(mean_ngrams, 1.0) ** 0.5)

    def train(self, mode: bool = True) -> "Network":
        """Switch modes; in eval mode one table has the products of weights and ratios."""
        super().train(mode)
        if not mode:
            with torch.no_grad():
                self.table = self.weight * self.ratio
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end -> (batch, labels) logits."""
        rows = self._rows(tokens).flatten(1)
        if not self.training:
            # In 64 bits: of some thousand numbers the sum would depend on the padding.
            return self.table[rows].double().sum(dim=1).float() + self.offset
        if self.dropout:
            shown = torch.rand(rows.shape, device=rows.device) >= self.dropout
            rows = torch.where(shown, rows, self._nothing)
        added = (self.weight[rows] * self.ratio[rows]).sum(dim=1)
        return added / (1 - self.dropout) + self.offset

    def contributions(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, labels, 2, tokens): what each word adds, and the pair that it begins."""
        return self.table[self._rows(tokens)].permute(0, 3, 1, 2)

    def bias(self) -> Tensor:
        """(labels,): what no place adds."""
        return self.offset

    @property
    def _nothing(self) -> int:
        """The row of padding, whose numbers are 0."""
        return self.vocabulary + self.places

    def _rows(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, 2, tokens): the rows of the table for each word, and for each pair."""
        following = nn.functional.pad(tokens[:, 1:], (0, 1), value=self.pad_id)
        pairs = self.vocabulary + (tokens * self.vocabulary + following) % self.places
        is_word, has_pair = tokens != self.pad_id, following != self.pad_id
        return torch.stack(
            [torch.where(is_word, tokens, self._nothing), torch.where(has_pair, pairs, self._nothing)], dim=1
        )
