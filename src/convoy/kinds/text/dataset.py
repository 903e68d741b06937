"""Prepared texts -> padded batches of similar length, so that little time goes into padding."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from convoy.core.params import Section
from convoy.kinds.evaluation_batches import Batch, EvaluationBatches
from convoy.kinds.text.prepared import read as read_texts

LENGTH_STEP = 8  # batches have few lengths: oneDNN prepares its kernels again for each length


class BatchParams(Section):
    """How training batches are drawn: their size, and how many of them are sorted by length together."""

    size: int = Field(ge=1)
    bucket: int = Field(ge=1)


class TextDataset:
    """One split: token ids of each text, in a file mapped into memory, and labels (n,) int64."""

    def __init__(self, path: Path) -> None:
        split = read_texts(path)
        self.arrays: list[NDArray[np.int32]] = split.tokens
        self.labels: NDArray[np.int64] = split.labels
        self.names = split.names
        self.dimensions = {"vocabulary": split.vocabulary, "pad_id": split.pad_id}
        self.lengths: NDArray[np.int64] = np.array([len(tokens) for tokens in split.tokens])
        self.evaluation_order: NDArray[np.int64] = np.argsort(self.lengths, kind="stable")

    def training_batches(self, params: BatchParams, seed: int, epoch: int, device: torch.device) -> "TrainingBatches":
        """Shuffled batches of one epoch; the same seed and epoch give the same batches."""
        return TrainingBatches(self, params, np.random.default_rng([seed, epoch]), device)

    def evaluation_batches(self, size: int, device: torch.device) -> EvaluationBatches:
        """All items once, the shortest first, in `evaluation_order`."""
        return EvaluationBatches(self, size, device)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """These texts padded to one length, a multiple of LENGTH_STEP, (batch, tokens) int64, and their labels."""
        longest = -(-int(self.lengths[rows].max()) // LENGTH_STEP) * LENGTH_STEP
        tokens = np.full((len(rows), longest), self.dimensions["pad_id"], dtype=np.int64)
        for target, row in zip(tokens, rows, strict=True):
            target[: self.lengths[row]] = self.arrays[row]
        return torch.from_numpy(tokens).to(device), torch.from_numpy(self.labels[rows]).to(device)


class TrainingBatches:
    """An iterable of one epoch's (tokens, labels); a last batch that is not full is left out."""

    def __init__(
        self, dataset: TextDataset, params: BatchParams, generator: np.random.Generator, device: torch.device
    ) -> None:
        self._dataset, self._params, self._generator, self._device = dataset, params, generator, device

    def __len__(self) -> int:
        return max(1, len(self._dataset.labels) // self._params.size)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._draw():
            yield self._dataset.take(rows, self._device)

    def _draw(self) -> list[NDArray[np.int64]]:
        """Shuffle, cut into buckets, sort each by length, cut into batches, shuffle those."""
        order = self._generator.permutation(len(self._dataset.labels))
        size = self._params.size
        bucket = size * self._params.bucket
        batches = []
        for start in range(0, len(order), bucket):
            rows = order[start : start + bucket]
            rows = rows[np.argsort(self._dataset.lengths[rows], kind="stable")]
            batches += [rows[first : first + size] for first in range(0, len(rows), size)]
        full = [batch for batch in batches if len(batch) == size] or batches
        return [full[index] for index in self._generator.permutation(len(full))][: len(self)]
