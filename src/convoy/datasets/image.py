"""Prepared images -> batches: the whole split is one tensor, drawn from and augmented a batch at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from convoy.params import Section
from convoy.prepared.image import read_images

Batch = tuple[Tensor, Tensor]


class BatchParams(Section):
    """How training batches are drawn: their size, mirrored or not, shifted and erased by up to so many pixels."""

    size: int = Field(ge=1)
    flip: bool
    shift_px: int = Field(ge=0)
    erase_px: int = Field(ge=0)


class ImageDataset:
    """One split: images (n, height, width, channels) uint8 and labels (n,) int64, in memory, uint8 until the model."""

    def __init__(self, path: Path) -> None:
        split = read_images(path)
        self.arrays: NDArray[np.uint8] = split.images
        self.labels: NDArray[np.int64] = split.labels
        self.names = split.names
        self.dimensions = {"size_px": split.images.shape[1], "channels": split.images.shape[3]}
        self.evaluation_order: NDArray[np.int64] = np.arange(len(split.labels))
        self._images = torch.from_numpy(split.images.copy())
        self._labels = torch.from_numpy(split.labels.copy())

    def training_batches(self, params: BatchParams, seed: int, epoch: int, device: torch.device) -> "TrainingBatches":
        """Shuffled, augmented batches of one epoch; the same seed and epoch give the same batches."""
        self._images, self._labels = self._images.to(device), self._labels.to(device)
        return TrainingBatches(self._images, self._labels, params, np.random.default_rng([seed, epoch]))

    def evaluation_batches(self, size: int, device: torch.device) -> list[Batch]:
        """All items once, as they are, in `evaluation_order`."""
        images, labels = self._images.to(device), self._labels.to(device)
        return list(zip(torch.split(images, size), torch.split(labels, size), strict=True))


class TrainingBatches:
    """An iterable of one epoch's (images, labels); a last batch that is not full is left out."""

    def __init__(self, images: Tensor, labels: Tensor, params: BatchParams, generator: np.random.Generator) -> None:
        self._images, self._labels, self._params, self._generator = images, labels, params, generator

    def __len__(self) -> int:
        return max(1, len(self._labels) // self._params.size)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.from_numpy(self._generator.permutation(len(self._labels))).to(self._labels.device)
        for rows in torch.split(order, self._params.size)[: len(self)]:
            moved = augment(self._images[rows], self._params, self._generator)
            yield erase(moved, self._params.erase_px, self._generator), self._labels[rows]


def augment(images: Tensor, params: BatchParams, generator: np.random.Generator) -> Tensor:
    """Mirror half of the images and shift each by its own number of pixels; what comes in from outside is 0."""
    count, height, width, _ = images.shape
    columns = torch.arange(width).repeat(count, 1)
    if params.flip:
        mirrored = torch.from_numpy(generator.random(count) < 0.5)
        columns[mirrored] = columns[mirrored].flip(1)
    rows = torch.arange(height).repeat(count, 1)
    if params.shift_px:
        margin = params.shift_px
        images = torch.nn.functional.pad(images, (0, 0, margin, margin, margin, margin))
        shifts = torch.from_numpy(generator.integers(0, 2 * margin + 1, size=(2, count, 1)))
        rows, columns = rows + shifts[0], columns + shifts[1]
    device = images.device
    item = torch.arange(count, device=device)[:, None, None]
    return images[item, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]


def erase(images: Tensor, side_px: int, generator: np.random.Generator) -> Tensor:
    """Paint a rectangle of one grey over half of the images (Random Erasing, Zhong et al. 2017, arXiv:1708.04896).

    Its sides are side_px / 2 to side_px long; it may hang over the border. 0 leaves the images as they are.
    """
    if not side_px:
        return images
    count, height, width, channels = images.shape
    half = side_px // 2
    sides = generator.integers(max(half, 1), side_px + 1, size=(2, count, 1))
    starts = generator.integers(-half, [[[height]], [[width]]], size=(2, count, 1))
    greys = generator.integers(0, 256, size=(count, 1, 1, channels), dtype=np.uint8)
    rows, columns = (
        (np.arange(length) >= start) & (np.arange(length) < start + side)
        for length, start, side in zip((height, width), starts, sides, strict=True)
    )
    rows &= generator.random((count, 1)) < 0.5
    painted = torch.from_numpy(rows[:, :, None, None] & columns[:, None, :, None]).to(images.device)
    return torch.where(painted, torch.from_numpy(greys).to(images.device), images)
