"""An LSTM that reads a text forwards and one that reads it backwards: token ids -> (batch, labels) logits."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.kinds.learning.class_activation import PlaceNetwork
from convoy.kinds.text.networks.layers.two_way import Reader
from convoy.kinds.text.networks.layers.vectors import PairParams

SMALLEST_NORM = 1e-12  # the least divisor, for a text without gradient


class NetworkParams(Section):
    """Size of the word vectors, units per direction, dropout.

    `adversarial` is how far a text's vectors are moved against the training, as a share of their norm; 0: not at all.
    Each of `context_windows` is one member of the ensemble: its word vectors are learnt first from words up to so far
    apart in the training texts; 0: they are random. With `pairs` each word's vector is the sum of its own and
    of the vector of its pair with the word that follows it in the text.
    """

    embedding: int = Field(ge=1)
    units: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    adversarial: float = Field(ge=0, lt=1)
    context_windows: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    pairs: PairParams | None


class Network(PlaceNetwork):
    """Members that answer together and learn apart (Lakshminarayanan et al. 2017, arXiv:1612.01474); one is enough.

    In training each member reads every n-th text of a batch and no other, so that n members of n times the epochs
    cost and learn as much as n networks trained one after the other. The answer is the mean of their logits.
    """

    def __init__(self, params: NetworkParams, *, vocabulary: int, pad_id: int, labels: int) -> None:
        super().__init__()
        self.labels = labels
        self.replays = 2 if params.adversarial else 1
        windows = params.context_windows
        self.members = nn.ModuleList(Member(params, vocabulary, pad_id, labels, window) for window in windows)

    def pretrain(self, texts: Sequence[NDArray[Any]], labels: NDArray[Any], seed: int) -> None:
        """Learn the word vectors of each member from the training texts, without labels."""
        for member in self._readers():
            member.pretrain(texts, labels, seed)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64, padded at the end, at least one word each -> (batch, labels) logits."""
        return self._learn(tokens) if self.training else self._answer(tokens)

    def contributions(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, labels, 1, tokens): a place is a word; the mean over the members."""
        return torch.stack([member.contributions(tokens) for member in self._readers()]).mean(dim=0)

    def bias(self) -> Tensor:
        """(labels,): what no place adds."""
        return torch.stack([member.classify.bias for member in self._readers()]).mean(dim=0)

    def _readers(self) -> list["Member"]:
        return [member for member in self.members if isinstance(member, Member)]

    def _answer(self, tokens: Tensor) -> Tensor:
        return torch.stack([member(tokens) for member in self.members]).mean(dim=0)

    def _learn(self, tokens: Tensor) -> Tensor:
        count = len(self.members)
        shares = [member(tokens[first::count]) for first, member in enumerate(self.members) if first < len(tokens)]
        logits: Tensor = shares[0].new_empty(len(tokens), self.labels)
        for first, share in enumerate(shares):
            logits[first::count] = share
        return logits


class Member(Reader):
    """One reader of the ensemble, with pairs of words and an adversary where the params ask for them."""

    def __init__(self, params: NetworkParams, vocabulary: int, pad_id: int, labels: int, window: int) -> None:
        super().__init__(nn.LSTM, params, vocabulary, pad_id, labels, window, params.pairs)
        self.adversary = Adversary(params.adversarial) if params.adversarial else None

    def added_vectors(self, tokens: Tensor) -> Tensor | None:
        """The vectors of pairs, and in training what the adversary adds."""
        pairs = super().added_vectors(tokens)
        if self.adversary is None or not self.training:
            return pairs
        own = self.vectors.embed(tokens).detach()
        moved: Tensor = self.adversary(tokens, own if pairs is None else own + pairs.detach())
        return moved if pairs is None else pairs + moved


class Adversary(nn.Module):
    """Moves the vectors of a text to where the loss grows fastest: adversarial training for free.

    Miyato, Dai & Goodfellow 2017 (arXiv:1605.07725), who normalise the word vectors; here the step is a share of each
    text's norm instead. The gradient is the one of the step before, on the same texts, as in Shafahi et al. 2019
    (arXiv:1904.12843), so that no step is taken for it alone: each batch comes twice in a row (`replays`), the second
    time it is disturbed. Nothing is kept from one such pair to the next, so that a training interrupted between epochs
    loses nothing.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self._tokens: Tensor | None = None
        self._gradient: Tensor | None = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a graph has no memory of the step before
    def forward(self, tokens: Tensor, vectors: Tensor) -> Tensor:
        """(batch, tokens) ids, (batch, tokens, size) their vectors -> what to add, `share` of each text's norm long.

        Nothing the first time, and for texts whose gradient overflowed: with 16-mixed the loss is scaled up until some
        do, and the scaler skips that step. Padding, which no loss depends on, is left as it is.
        """
        if self._gradient is not None and self._tokens is not None and torch.equal(tokens, self._tokens):
            gradient, self._tokens, self._gradient = self._gradient, None, None
            norms = _norms(gradient)
            moved = gradient * (self.share * _norms(vectors) / norms.clamp_min(SMALLEST_NORM))
            return moved.where(norms.isfinite(), 0)
        nothing = torch.zeros_like(vectors, requires_grad=True)
        nothing.register_hook(self._remember)  # type: ignore[no-untyped-call]
        self._tokens, self._gradient = tokens, None
        return nothing

    def _remember(self, gradient: Tensor) -> None:
        self._gradient = gradient.detach().float()


def _norms(vectors: Tensor) -> Tensor:
    """(batch, tokens, size) -> (batch, 1, 1): of each text as one vector."""
    norms: Tensor = torch.linalg.vector_norm(vectors.detach(), dim=(1, 2), keepdim=True)
    return norms
