"""The training loop that one writes by hand in PyTorch: what Lightning and our batches are measured against."""

import time
from collections.abc import Iterable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from convoy.training.callbacks import seed_epoch
from convoy.training.classifier import Classifier, LearningParams

Batches = Iterable[tuple[Tensor, Tensor]]


def train_by_hand(network: nn.Module, batches: Batches, steps: int, learning: LearningParams, seed: int) -> float:
    """Train one epoch of `steps` batches and give the seconds that it took, drawing of the batches included.

    Optimizer, rate and loss are the Classifier's. The losses are added up where they are and read once at the end,
    as Lightning does, since reading one waits for the device.
    """
    trainer = SimpleNamespace(estimated_stepping_batches=steps, max_epochs=1)
    classifier = Classifier(network, learning)
    classifier.trainer = trainer  # type: ignore[assignment]
    made = classifier.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    network.train()
    seed_epoch(seed, 0)  # as our path does, so that both drop the same units
    started_s = time.perf_counter()
    total = torch.zeros(())
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(network(inputs), labels, label_smoothing=learning.label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += loss.detach()
    if not torch.isfinite(total):
        raise RuntimeError("the loss is not finite: what was measured was no training")
    return time.perf_counter() - started_s
