"""A network, batches and a budget of multiply-adds -> a trained network; one plain loop for all that is compared.

No Lightning here, unlike in the pipeline: up to a hundred trainings of seconds each need no checkpoints, and of steps
of a millisecond its hooks would be a good part, which would fall on the quick families hardest.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from math import inf
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from convoy.core.params import Section
from lab.learning.costs import count_step

Batch = tuple[Tensor, Tensor]
CPU = torch.device("cpu")  # the networks are small, and there the figures of costs can be compared
ASKED_AT_ONCE = 250


class Budget(Section):
    """Multiply-adds of one training, and the epochs after which it ends at the latest; the size of a batch."""

    multiply_adds: float = Field(gt=0)
    max_epochs: float = Field(gt=0)
    batch_size: int = Field(ge=1)

    def for_epochs(self, epochs: float) -> "Budget":
        """One that ends after so many epochs, whatever they cost."""
        return Budget(multiply_adds=inf, max_epochs=epochs, batch_size=self.batch_size)


class LearningParams(Section):
    """What is the same for all: seeds, decay of weights, the norm that a gradient is cut to, the budgets."""

    seeds: tuple[int, ...] = Field(min_length=1)
    weight_decay: float = Field(ge=0)
    gradient_norm: float = Field(gt=0)
    image: Budget
    text: Budget
    text_bucket: int = Field(ge=1)

    def with_rate(self, learning_rate: float) -> "Optimizing":
        """How the weights of a network are changed whose peak rate is this."""
        return Optimizing(learning_rate, self.weight_decay, self.gradient_norm)


@dataclass(frozen=True)
class Spent:
    """What a training took: steps, epochs, multiply-adds as torch counts them, seconds; and its losses (steps,)."""

    steps: int
    epochs: float
    multiply_adds: float
    seconds: float
    losses: list[float]


class Items(Protocol):
    """What can be asked: a data set of images or of texts."""

    labels: NDArray[np.int64]
    evaluation_order: NDArray[np.int64]

    def evaluation_batches(self, size: int, device: torch.device) -> Iterable[Batch]:
        """All items once, in `evaluation_order`."""
        ...


@dataclass(frozen=True)
class Trained:
    """A network, and what its training took."""

    network: nn.Module
    spent: Spent


@dataclass(frozen=True)
class Optimizing:
    """How the weights are changed: AdamW (arXiv:1711.05101), its rate one cycle (arXiv:1708.07120) up to its peak."""

    learning_rate: float
    weight_decay: float
    gradient_norm: float


def per_seed(params: LearningParams, train: Callable[[int], Trained]) -> list[Trained]:
    """A training for each seed, which weights and dropout are drawn from."""
    found = []
    for seed in params.seeds:
        torch.manual_seed(seed)
        found.append(train(seed))
    return found


def spend(
    network: nn.Module, draw: Callable[[int], Iterable[Batch]], budget: Budget, how: Optimizing, title: str
) -> Spent:
    """Train in place until the budget is spent; `draw` gives the batches of an epoch.

    The cost of a step is that of the batch of epoch 0 whose size is nearest to the mean: it grows evenly with size.
    """
    sizes = [inputs.numel() for inputs, _ in draw(0)]
    per_epoch, usual = len(sizes), sum(sizes) / len(sizes)
    typical = min((inputs for inputs, _ in draw(0)), key=lambda inputs: abs(inputs.numel() - usual))
    of_step = count_step(network, typical)
    longest = budget.max_epochs * per_epoch
    steps = max(1, round(min(longest, budget.multiply_adds / of_step if of_step else inf)))
    batches = islice((batch for epoch in count() for batch in draw(epoch)), steps)
    start = time.perf_counter()
    losses = learn(network, batches, steps, how, title)
    return Spent(steps, steps / per_epoch, steps * of_step, time.perf_counter() - start, losses)


def learn(network: nn.Module, batches: Iterator[Batch], steps: int, how: Optimizing, title: str) -> list[float]:
    """Take `steps` of `batches`; the loss of each (steps,). The network is left in eval mode."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), how.learning_rate, weight_decay=how.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.learning_rate, total_steps=max(2, steps))
    losses = []
    interval_s = 0.5 if sys.stderr.isatty() else 30
    shown = tqdm(batches, title, total=steps, unit="step", mininterval=interval_s, maxinterval=interval_s)
    for inputs, labels in shown:
        optimizer.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(network(inputs), labels)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), how.gradient_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    network.eval()
    return losses


@torch.inference_mode()
def ask(network: nn.Module, dataset: Items) -> NDArray[np.float32]:
    """Logits (n, labels) of all items, in the order of the data set."""
    network.eval()
    batches = dataset.evaluation_batches(ASKED_AT_ONCE, CPU)
    found = torch.cat([network(inputs) for inputs, _ in batches]).numpy()
    logits = np.empty_like(found)
    logits[dataset.evaluation_order] = found
    return logits


def right(network: nn.Module, dataset: Items) -> NDArray[np.bool_]:
    """Whether each item (n,) gets its label."""
    found: NDArray[np.bool_] = ask(network, dataset).argmax(axis=1) == dataset.labels
    return found
