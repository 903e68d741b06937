"""Plain networks for images, by one plain loop: a textbook CNN, a feed-forward network, logistic regression."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from convoy.core.params import Section
from convoy.kinds.image.items.prepared import Split as ImageSplit

KERNEL_PX, POOL = 3, 2
EVALUATION_BATCH = 500


class ImageBaseline(Section):
    """The widths of a network's layers and how Adam trains it; without any width it is logistic regression."""

    convolutions: tuple[int, ...]
    hidden: tuple[int, ...]
    dropout: float = Field(ge=0, lt=1)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)


class Baselines(Section):
    """The section `baselines` of a data set of images: the seed, and the networks by their names."""

    seed: int
    networks: dict[str, ImageBaseline]


class Scale(nn.Module):
    """(batch, height, width, channels) uint8 -> (batch, channels, height, width) from 0 to 1."""

    def forward(self, images: Tensor) -> Tensor:
        """No mean, no spread: the plain networks of textbooks."""
        return images.permute(0, 3, 1, 2) / 255


def build(params: ImageBaseline, shape: tuple[int, ...], labels: int) -> nn.Sequential:
    """The untrained network for images of `shape` (height, width, channels).

    Raises ValueError where they are too small for so many convolutions.
    """
    height, width, channels = shape
    layers: list[nn.Module] = [Scale()]
    for filters in params.convolutions:
        layers += [nn.Conv2d(channels, filters, KERNEL_PX), nn.ReLU(), nn.MaxPool2d(POOL)]
        height, width, channels = (height - KERNEL_PX + 1) // POOL, (width - KERNEL_PX + 1) // POOL, filters
    if min(height, width) < 1:
        raise ValueError(
            f"images of {shape[0]} x {shape[1]} pixels are too small for a baseline of {len(params.convolutions)} "
            "convolutions: raise prepare.preprocessing.size_px of the data set, or remove the baseline in params.yaml"
        )
    layers.append(nn.Flatten())
    widths = [prod((height, width, channels)), *params.hidden]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(params.dropout), nn.Linear(widths[-1], labels))


def train(params: ImageBaseline, split: ImageSplit, seed: int, title: str) -> nn.Sequential:
    """Train on the CPU for all epochs and keep the last weights; one seed gives one network."""
    torch.manual_seed(seed)
    network = build(params, split.contents.shape[1:], len(split.names))
    optimizer = torch.optim.Adam(network.parameters(), lr=params.learning_rate)
    labels = torch.from_numpy(split.labels.copy())
    interval_s = 0.5 if sys.stderr.isatty() else 30
    for _ in tqdm(range(params.epochs), title, unit="epoch", mininterval=interval_s, maxinterval=interval_s):
        for rows in torch.split(torch.randperm(len(labels)), params.batch_size):
            optimizer.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(network(_to_tensor(split.contents, rows)), labels[rows])
            torch.autograd.backward(loss)
            optimizer.step()
    return network.eval()


@torch.inference_mode()
def predict(network: nn.Module, images: Any) -> NDArray[np.int64]:
    """The label (n,) that a network in eval mode gives each image."""
    labels = np.empty(len(images), dtype=np.int64)  # a list of parts would fragment the memory of the next batch
    for rows in torch.split(torch.arange(len(images)), EVALUATION_BATCH):
        labels[rows] = network(_to_tensor(images, rows)).argmax(dim=1).numpy()
    return labels


def predictions(params: Baselines, split: ImageSplit, images: Any) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Train each baseline on `split` and yield its name and the labels (n,) that it gives `images`."""
    for name, network in params.networks.items():
        yield name, predict(train(network, split, params.seed, name), images)


def _to_tensor(images: Any, rows: Tensor) -> Tensor:
    """These images, read from a mapped file that may be larger than memory."""
    return torch.from_numpy(images[rows.numpy()])
