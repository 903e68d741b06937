"""Sequences whose label a single token at a distance decides -> who still solves them, and how its gradient fades."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from lab.layout import Reader
from lab.learning.cells import recurrent_cell

SIGNALS = 2  # tokens 0 and 1 decide; no other place has them


class MemoryParams(Section):
    """The task, the readers' sizes and how they learn; `gradient_steps` is how far back the gradient is followed.

    A training ends early where the last `window` steps had `solved` of their sequences right.
    """

    seeds: tuple[int, ...] = Field(min_length=1)
    distances: tuple[int, ...] = Field(min_length=2)
    noise_tokens: int = Field(ge=1)
    embedding: int = Field(ge=1)
    units: dict[str, int]
    channels: int = Field(ge=1)
    width: int = Field(ge=2)
    dilations: dict[str, tuple[int, ...]]
    learning_rate: float = Field(gt=0)
    gradient_norm: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    window: int = Field(ge=1)
    ask: int = Field(ge=1)
    solved: float = Field(gt=0.5, le=1)
    gradient_steps: int = Field(ge=2)
    judged_gradient: int = Field(ge=1)


def draw(count: int, distance: int, noise_tokens: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Tokens (count, distance + 1) int64 and labels (count,): the first token is the label, all others are noise."""
    labels = generator.integers(SIGNALS, size=count)
    tokens = generator.integers(SIGNALS, SIGNALS + noise_tokens, size=(count, distance + 1))
    tokens[:, 0] = labels
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def receptive_field(width: int, dilations: Sequence[int]) -> int:
    """How many tokens, the last one included, a stack of causal convolutions can see."""
    return 1 + (width - 1) * sum(dilations)


def build(reader: Reader, params: MemoryParams) -> nn.Module:
    """An untrained reader."""
    body: nn.Module
    if reader in params.units:
        body = StateReader(reader, params.embedding, params.units[reader])
        return SequenceReader(params, body, params.units[reader])
    if reader == "cnn-max":
        return SequenceReader(params, MaximumReader(params.embedding, params.channels), params.channels)
    body = CausalReader(params.embedding, params.channels, params.width, params.dilations[reader])
    return SequenceReader(params, body, params.channels)


class SequenceReader(nn.Module):
    """Tokens -> vectors -> a body that sums them up -> logits."""

    def __init__(self, params: MemoryParams, body: nn.Module, size: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(SIGNALS + params.noise_tokens, params.embedding)
        self.body = body
        self.classify = nn.Linear(size, SIGNALS)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> (batch, labels) logits."""
        return self.answer(self.embed(tokens))

    def answer(self, vectors: Tensor) -> Tensor:
        """(batch, tokens, embedding) -> (batch, labels) logits."""
        logits: Tensor = self.classify(self.body(vectors))
        return logits


class StateReader(nn.Module):
    """The last state of a recurrent layer."""

    def __init__(self, kind: str, inputs: int, units: int) -> None:
        super().__init__()
        self.cell = recurrent_cell(kind, inputs, units)

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, tokens, embedding) -> (batch, units)."""
        states, _ = self.cell(vectors)
        last: Tensor = states[:, -1]
        return last


class CausalReader(nn.Module):
    """Dilated causal convolutions (Bai et al. 2018, arXiv:1803.01271): the last place sees its receptive field only."""

    def __init__(self, inputs: int, channels: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.widen = nn.Linear(inputs, channels)
        self.layers = nn.ModuleList(nn.Conv1d(channels, channels, width, dilation=each) for each in dilations)

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, tokens, embedding) -> (batch, channels)."""
        features: Tensor = self.widen(vectors).transpose(1, 2)
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            before = (layer.kernel_size[0] - 1) * layer.dilation[0]
            features = features + layer(nn.functional.pad(features, (before, 0))).relu()
        return features[:, :, -1]


class MaximumReader(nn.Module):
    """Kim's way: filters everywhere, and the best match counts, wherever it is."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.filters = nn.Linear(inputs, channels)

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, tokens, embedding) -> (batch, channels)."""
        best: Tensor = self.filters(vectors).relu().amax(dim=1)
        return best


def train(network: nn.Module, params: MemoryParams, distance: int, seed: int) -> int:
    """Train until the task is solved or the steps are used up; how many it took."""
    generator = np.random.default_rng([seed, distance])
    optimizer = torch.optim.Adam(network.parameters(), params.learning_rate)
    recent: list[float] = []
    for step in range(1, params.steps + 1):
        tokens, labels = draw(params.batch_size, distance, params.noise_tokens, generator)
        optimizer.zero_grad()
        logits = network(tokens)
        torch.autograd.backward(nn.functional.cross_entropy(logits, labels))
        nn.utils.clip_grad_norm_(network.parameters(), params.gradient_norm)
        optimizer.step()
        recent = [*recent[1 - params.window :], float((logits.argmax(dim=1) == labels).float().mean())]
        if len(recent) == params.window and sum(recent) / params.window >= params.solved:
            return step
    return params.steps


@torch.inference_mode()
def ask(network: nn.Module, params: MemoryParams, distance: int, seed: int) -> NDArray[np.bool_]:
    """Whether each of `params.ask` fresh sequences gets its label; its noise is none of the training's."""
    tokens, labels = draw(params.ask, distance, params.noise_tokens, np.random.default_rng([seed, distance, 1]))
    right: NDArray[np.bool_] = (network(tokens).argmax(dim=1) == labels).numpy()
    return right


def gradient_norms(network: nn.Module, params: MemoryParams, seed: int) -> NDArray[np.float64]:
    """(gradient_steps,): how much the loss hangs on the vector so many tokens before the last, the last one's being 1.

    The mean norm over a batch of the loss's gradient at each vector.
    """
    assert isinstance(network, SequenceReader)
    generator = np.random.default_rng([seed, 2])
    tokens, labels = draw(params.batch_size, params.gradient_steps - 1, params.noise_tokens, generator)
    vectors = network.embed(tokens).detach().requires_grad_()
    loss = nn.functional.cross_entropy(network.answer(vectors), labels)
    (gradient,) = torch.autograd.grad(loss, vectors)
    norms = gradient.norm(dim=2).mean(dim=0).flip(0).double().numpy()
    relative: NDArray[np.float64] = norms / max(float(norms[0]), np.finfo(np.float64).tiny)
    return relative


def reach(distances: Sequence[int], accuracies: Sequence[float], solved: float) -> int:
    """The largest distance up to which every distance is solved; 0 where even the least is not."""
    found = 0
    for distance, accuracy in zip(distances, accuracies, strict=True):
        if accuracy < solved:
            break
        found = distance
    return found
