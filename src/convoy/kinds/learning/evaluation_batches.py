"""A split -> all of its items once, in batches that are read when they are needed."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Dataset(Protocol):
    """One split; `evaluation_order` (n,) has its rows in the order that is fastest to read."""

    evaluation_order: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """The inputs of these rows as one tensor, and their labels."""


class EvaluationBatches:
    """An iterable of all (inputs, labels) of a split, without augmentation."""

    def __init__(self, dataset: Dataset, size: int, device: torch.device) -> None:
        self._dataset, self._size, self._device = dataset, size, device

    def __len__(self) -> int:
        return -(-len(self._dataset.evaluation_order) // self._size)

    def __iter__(self) -> Iterator[Batch]:
        order = self._dataset.evaluation_order
        for start in range(0, len(order), self._size):
            yield self._dataset.take(order[start : start + self._size], self._device)
