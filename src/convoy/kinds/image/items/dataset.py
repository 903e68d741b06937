"""Prepared images -> batches, drawn and augmented one at a time; the split itself stays in its file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from convoy.core.params import Section
from convoy.kinds.image.items.prepared import EncodedImages, map_new_file
from convoy.kinds.image.items.prepared import read as read_images
from convoy.kinds.image.items.preprocessing import to_input
from convoy.kinds.learning.evaluation_batches import Batch, EvaluationBatches
from convoy.kinds.learning.input_contract import InputContract

# A split up to this size is kept whole on a GPU, which then never waits for the host; Fashion-MNIST's has 43 MB.
RESIDENT_BYTES = 2_000_000_000
SCRATCH = Path(".run/inputs")  # of nameless files


class BatchParams(Section):
    """How training batches are drawn: their size, mirrored or not, shifted by up to so many pixels."""

    size: int = Field(ge=1)
    flip: bool
    shift_px: int = Field(ge=0)


class Dataset:
    """One split: images (n, height, width, channels) uint8, in a file mapped into memory, and labels (n,) int64."""

    def __init__(self, path: Path, contract: InputContract) -> None:
        split = read_images(path)
        self.arrays: NDArray[np.uint8] = _to_inputs(split.contents, contract)
        self.labels: NDArray[np.int64] = split.labels
        self.names = split.names
        self.dimensions = {"size_px": self.arrays.shape[1], "channels": self.arrays.shape[3]}
        self.evaluation_order: NDArray[np.int64] = np.arange(len(split.labels))
        self._resident: Tensor | None = None

    def training_batches(self, params: BatchParams, seed: int, epoch: int, device: torch.device) -> "TrainingBatches":
        """Shuffled, augmented batches of one epoch; the same seed and epoch give the same batches."""
        return TrainingBatches(self, params, np.random.default_rng([seed, epoch]), device)

    def evaluation_batches(self, size: int, device: torch.device) -> EvaluationBatches:
        """All items once, as they are, in `evaluation_order`."""
        return EvaluationBatches(self, size, device)

    def take(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """These images, (rows, height, width, channels) uint8, and their labels."""
        labels = torch.from_numpy(self.labels[rows]).to(device)
        if device.type == "cpu" or self.arrays.nbytes > RESIDENT_BYTES:
            return torch.from_numpy(self.arrays[rows]).to(device), labels
        if self._resident is None or self._resident.device != device:
            self._resident = torch.from_numpy(self.arrays.copy()).to(device)
        return self._resident[torch.from_numpy(rows).to(device)], labels


def _to_inputs(contents: NDArray[np.uint8] | EncodedImages, contract: InputContract) -> NDArray[np.uint8]:
    """The pixels that a candidate takes: those of the split, or, made once, those of its own contract."""
    if not contract.is_own and not isinstance(contents, EncodedImages):
        return contents
    form = contract.preprocessing
    inputs = map_new_file((len(contents), form.size_px, form.size_px, form.channels), SCRATCH)
    for row, pixels in enumerate(contents):
        inputs[row] = to_input(pixels, form)
    return inputs


class TrainingBatches:
    """An iterable of one epoch's (images, labels); a last batch that is not full is left out."""

    def __init__(
        self, dataset: Dataset, params: BatchParams, generator: np.random.Generator, device: torch.device
    ) -> None:
        self._dataset, self._params, self._generator, self._device = dataset, params, generator, device

    def __len__(self) -> int:
        return max(1, len(self._dataset.labels) // self._params.size)

    def __iter__(self) -> Iterator[Batch]:
        order = self._generator.permutation(len(self._dataset.labels))
        size = self._params.size
        for start in range(0, len(self) * size, size):
            images, labels = self._dataset.take(order[start : start + size], self._device)
            yield augment(images, self._params, self._generator), labels


def augment(images: Tensor, params: BatchParams, generator: np.random.Generator) -> Tensor:
    """Mirror half of the images and shift each by its own number of pixels; pixels from outside the image are 0."""
    device, (count, height, width, _) = images.device, images.shape
    rows, columns = (torch.arange(length, device=device).repeat(count, 1) for length in (height, width))
    if params.flip:
        mirrored = torch.from_numpy(generator.random((count, 1)) < 0.5).to(device)
        columns = torch.where(mirrored, columns.flip(1), columns)
    if params.shift_px:
        margin = params.shift_px
        images = torch.nn.functional.pad(images, (0, 0, margin, margin, margin, margin))
        shifts = torch.from_numpy(generator.integers(0, 2 * margin + 1, size=(2, count, 1))).to(device)
        rows, columns = rows + shifts[0], columns + shifts[1]
    indices = torch.arange(count, device=device)[:, None, None]
    return images[indices, rows[:, :, None], columns[:, None, :]]
