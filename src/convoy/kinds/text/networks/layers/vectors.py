"""Token ids -> word vectors, learnt before training from words that occur together, and vectors of word pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn

from convoy.core.params import Section

# Both from Levy, Goldberg and Dagan 2015 (TACL 3), who found them best for similarity of words.
CONTEXT_POWER = 0.75  # rare context words count a little more, as in word2vec
EIGENVALUE_POWER = 0.5  # singular values enter by their root

NO_PAIR = -1  # the key of a place that no pair has


class WordVectors(nn.Module):
    """An embedding in which padding is the zero vector; `dropout` hides single numbers in training."""

    def __init__(self, vocabulary: int, size: int, pad_id: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, size, padding_idx=pad_id)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, added: Tensor | None = None) -> Tensor:
        """(batch, tokens) int64 -> (batch, tokens, size); `added`, of the same shape, is added before dropout."""
        vectors = self.embed(tokens) if added is None else self.embed(tokens) + added
        dropped: Tensor = self.dropout(vectors)
        return dropped

    @torch.no_grad()
    def learn(self, texts: Sequence[NDArray[Any]], window: int, seed: int) -> None:
        """Learn the vectors from texts (token ids each), without labels; a window of 0 keeps the random vectors."""
        if window:
            first_word = int(self.embed.padding_idx or 0) + 2  # after padding and the unknown word
            vocabulary, size = self.embed.weight.shape
            vectors = learn_word_vectors(texts, vocabulary, size, window, first_word, seed)
            self.embed.weight[first_word:] = torch.from_numpy(vectors[first_word:])


class PairParams(Section):
    """Places of the table, how often a pair must stand in the training texts, the share of pairs hidden in training."""

    places: int = Field(ge=1)
    min_count: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


class PairVectors(nn.Module):
    """A vector for each frequent pair, zero at first; the others have the zero vector.

    Word pairs as features of a recurrent network: Johnson & Zhang 2016, arXiv:1602.02373, learn such vectors of
    regions. A pair's place is a remainder, as in fastText (Joulin et al. 2017, arXiv:1607.01759); unlike there, the
    most frequent of the pairs with one place has it alone, so that a rare pair never gets another pair's vector.
    """

    def __init__(self, params: PairParams, vocabulary: int, size: int, pad_id: int) -> None:
        super().__init__()
        self.vocabulary, self.pad_id = vocabulary, pad_id
        self.places, self.min_count, self.dropout = params.places, params.min_count, params.dropout
        self.keys: Tensor
        self.register_buffer("keys", torch.full((params.places,), NO_PAIR))
        self.embed = nn.Embedding(params.places + 1, size, padding_idx=params.places)
        nn.init.zeros_(self.embed.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, tokens, size): at each word the vector of its pair with the next word."""
        following = nn.functional.pad(tokens[:, 1:], (0, 1), value=self.pad_id)
        pairs = tokens * self.vocabulary + following
        places = pairs % self.places
        has_vector = self.keys[places] == pairs
        if self.training and self.dropout:
            has_vector = has_vector & (torch.rand(has_vector.shape, device=has_vector.device) >= self.dropout)
        vectors: Tensor = self.embed(torch.where(has_vector, places, self.places))
        return vectors

    def learn(self, texts: Sequence[NDArray[Any]]) -> None:
        """Give each place to the most frequent of its pairs in these texts (token ids each)."""
        pairs = [text[:-1].astype(np.int64) * self.vocabulary + text[1:] for text in texts if len(text) > 1]
        unique_pairs, counts = np.unique(np.concatenate(pairs or [np.zeros(0, np.int64)]), return_counts=True)
        frequent = counts >= self.min_count
        unique_pairs, counts = unique_pairs[frequent], counts[frequent]
        order = np.argsort(counts, kind="stable")  # the last one written to a place keeps it
        keys = np.full(self.places, NO_PAIR, dtype=np.int64)
        keys[unique_pairs[order] % self.places] = unique_pairs[order]
        self.keys.copy_(torch.from_numpy(keys))


def learn_word_vectors(
    texts: Sequence[NDArray[Any]], vocabulary: int, size: int, window: int, first_word: int, seed: int
) -> NDArray[np.float32]:
    """Factorise how often words meet: (vocabulary, size) float32 of spread 1; rows below `first_word` are zero.

    Positive pointwise mutual information of words at most `window` apart, nearer ones counting more, by a truncated
    singular value decomposition (Levy & Goldberg 2014, Neural Word Embedding as Implicit Matrix Factorization).
    Words that occur beside no other word get the zero vector, as does every row where texts are fewer than `size`.
    """
    counts = _count_pairs(texts, vocabulary, window, first_word)
    information = _positive_information(counts)
    vectors = np.zeros((vocabulary, size), dtype=np.float32)
    if information.nnz == 0:
        return vectors
    left, values, _ = randomized_svd(information, size, n_iter=3, random_state=seed)
    has_neighbours = information.getnnz(axis=1) > 0  # other words get rounding errors, which would be scaled up
    vectors[has_neighbours, : left.shape[1]] = (left * values**EIGENVALUE_POWER)[has_neighbours]
    spread = float(vectors[first_word:].std())
    return vectors / spread if spread else vectors


def _count_pairs(texts: Sequence[NDArray[Any]], vocabulary: int, window: int, first_word: int) -> sparse.csr_matrix:
    """(vocabulary, vocabulary) symmetric: the sum of 1 / distance over all pairs within the window."""
    gap = np.zeros(window, dtype=np.int64)  # below first_word: no pair reaches from one text into the next
    stream = np.concatenate([part for text in texts for part in (text, gap)])
    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float32)
    for distance in range(1, window + 1):
        left, right = stream[:-distance], stream[distance:]
        words = (left >= first_word) & (right >= first_word)
        weight = np.full(int(words.sum()), 1 / distance, dtype=np.float32)
        pairs = sparse.csr_matrix((weight, (left[words], right[words])), shape=counts.shape)
        counts = counts + pairs + pairs.T
    return counts


def _positive_information(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """log(P(word, context) / (P(word) P(context))) where it is above 0."""
    words = np.asarray(counts.sum(axis=1)).ravel()
    contexts = words**CONTEXT_POWER
    pairs = counts.tocoo()
    information = np.log(pairs.data * contexts.sum() / (words[pairs.row] * contexts[pairs.col]))
    positive = information > 0
    entries = information[positive], (pairs.row[positive], pairs.col[positive])
    return sparse.csr_matrix(entries, shape=counts.shape)
