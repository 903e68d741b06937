"""Prepared texts -> padded batches of similar length, so that little time goes into padding."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from convoy.core.params import Section
from convoy.kinds.learning.evaluation_batches import Batch, EvaluationBatches
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.text.items.prepared import read as read_texts
from convoy.kinds.text.items.preprocessing import TextPreprocessor, open_preprocessor

LENGTH_STEP = 8  # batches have few lengths: oneDNN prepares its kernels again for each length
ENCODED_AT_ONCE = 250  # texts; the tokenizer takes up to 90 kB for each while it does
LARGEST_UNCUT_BATCH = 64  # of 2,500 words: 60 MB for each array of 96 numbers a word


class BatchParams(Section):
    """How training batches are drawn: their size, and how many of them are sorted by length together."""

    size: int = Field(ge=1)
    bucket: int = Field(ge=1)


class Dataset:
    """One split: token ids of each text, and labels (n,) int64.

    The ids stay in a file mapped into memory; those of a contract of its own are made from the texts once.
    """

    def __init__(self, path: Path, contract: InputContract) -> None:
        split = read_texts(path)
        self.arrays: list[NDArray[np.int32]] = split.tokens
        self.labels: NDArray[np.int64] = split.labels
        self.names = split.names
        self.dimensions = {"vocabulary": split.vocabulary, "pad_id": split.pad_id}
        if contract.is_own:
            preprocessor = open_preprocessor(contract.preprocessing, contract.files)
            self.arrays = _encode(preprocessor, split.contents)
            self.dimensions["vocabulary"] = preprocessor.tokenizer.get_vocab_size()
        self._cuts: bool = contract.preprocessing.cuts
        self.lengths: NDArray[np.int64] = np.array([len(tokens) for tokens in self.arrays])
        self.evaluation_order: NDArray[np.int64] = np.argsort(self.lengths, kind="stable")

    def training_batches(self, params: BatchParams, seed: int, epoch: int, device: torch.device) -> "TrainingBatches":
        """Shuffled batches of one epoch; the same seed and epoch give the same batches."""
        return TrainingBatches(self, params, np.random.default_rng([seed, epoch]), device)

    def evaluation_batches(self, size: int, device: torch.device) -> EvaluationBatches:
        """All items once, the shortest first, in `evaluation_order`; uncut texts in smaller batches."""
        return EvaluationBatches(self, size if self._cuts else min(size, LARGEST_UNCUT_BATCH), device)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """These texts padded to one length, a multiple of LENGTH_STEP, (batch, tokens) int64, and their labels."""
        longest = -(-int(self.lengths[rows].max()) // LENGTH_STEP) * LENGTH_STEP
        tokens = np.full((len(rows), longest), self.dimensions["pad_id"], dtype=np.int64)
        for target, row in zip(tokens, rows, strict=True):
            target[: self.lengths[row]] = self.arrays[row]
        return torch.from_numpy(tokens).to(device), torch.from_numpy(self.labels[rows]).to(device)


def _encode(preprocessor: TextPreprocessor, contents: Sequence[str]) -> list[NDArray[np.int32]]:
    arrays: list[NDArray[np.int32]] = []
    texts = iter(contents)
    while part := list(islice(texts, ENCODED_AT_ONCE)):
        arrays += [prepared.array.astype(np.int32) for prepared in preprocessor.prepare_all(part)]
    return arrays


class TrainingBatches:
    """An iterable of one epoch's (tokens, labels); a last batch that is not full is left out."""

    def __init__(
        self, dataset: Dataset, params: BatchParams, generator: np.random.Generator, device: torch.device
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
