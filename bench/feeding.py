"""The usual ways to feed a network, which ours are measured against: a DataLoader, and texts padded to one length."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convoy.kinds.image.items.dataset import BatchParams

STOCK_WORKERS = 2  # what the goal names
_AUGMENTATIONS = {"size", "flip", "shift_px"}


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """Images (n, height, width, channels) uint8 one at a time, each changed by chance as ours are in batches."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], params: BatchParams) -> None:
        unknown = set(type(params).model_fields) - _AUGMENTATIONS
        if unknown:
            raise NotImplementedError(f"bench/feeding.py does not augment by {unknown} yet: the comparison is not fair")
        self._images, self._labels, self._params = torch.from_numpy(images.copy()), labels.tolist(), params

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = self._images[row]
        height, width, _ = image.shape
        if self._params.flip and torch.rand(()) < 0.5:
            image = image.flip(1)
        if margin := self._params.shift_px:
            image = torch.nn.functional.pad(image, (0, 0, margin, margin, margin, margin))
            top, left = torch.randint(2 * margin + 1, (2,)).tolist()
            image = image[top : top + height, left : left + width]
        return image, self._labels[row]


def stock_loader(images: AugmentedImages, size: int) -> "DataLoader[tuple[Tensor, int]]":
    """What the tutorials show: shuffled, collated by default, by workers that stay."""
    return DataLoader(
        images, batch_size=size, shuffle=True, drop_last=True, num_workers=STOCK_WORKERS, persistent_workers=True
    )


class PaddedBatches:
    """Shuffled (tokens, labels), tokens (size, length) int64: every text padded to the same length."""

    def __init__(
        self, tokens: list[NDArray[np.int32]], labels: NDArray[np.int64], size: int, length: int, pad_id: int
    ) -> None:
        self._tokens, self._labels, self._size, self._length, self._pad_id = tokens, labels, size, length, pad_id
        self._generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self._labels) // self._size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._generator.permutation(len(self._labels))
        for number in range(len(self)):
            rows = order[number * self._size : (number + 1) * self._size]
            tokens = np.full((self._size, self._length), self._pad_id, dtype=np.int64)
            for target, row in zip(tokens, rows, strict=True):
                target[: len(self._tokens[row])] = self._tokens[row]
            yield torch.from_numpy(tokens), torch.from_numpy(self._labels[rows])
