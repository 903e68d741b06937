"""Prepared images -> the laboratory's part of them, changed or as they are, and networks that were trained on it."""

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.core import paths
from convoy.kinds.image.items import inputs
from convoy.kinds.image.items.dataset import BatchParams, Dataset, TrainingBatches
from lab.images.networks import ImageParams, image_network
from lab.layout import Family
from lab.learning.items import DataParams, divide
from lab.learning.training import CPU, LearningParams, Trained, per_seed, spend


@dataclass(frozen=True)
class Images:
    """What is learnt from, and what is asked."""

    learn: Dataset
    ask: Dataset


def read_image_subset(params: DataParams) -> Images:
    """Images of the train split, as they were prepared."""
    name = params.image.prepared
    dataset = Dataset(paths.split_file(name, "train"), inputs.make(paths.prepared(name), {}, "data.image"))
    learn, ask = divide(len(dataset.labels), params.image, params.seed)
    return Images(*(with_images(dataset, dataset.arrays[rows], dataset.labels[rows]) for rows in (learn, ask)))


def with_images(dataset: Dataset, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Dataset:
    """A data set like this one, of other images (n, height, width, channels) and labels (n,)."""
    other = copy(dataset)
    other.arrays, other.labels = images, labels
    other.evaluation_order = np.arange(len(labels))
    return other


def train_images(
    family: Family,
    params: ImageParams,
    learning: LearningParams,
    dataset: Dataset,
    title: str,
    epochs: float | None = None,
) -> list[Trained]:
    """A network per seed; with `epochs` for so many of them instead of the budget."""
    plain = BatchParams(size=learning.image.batch_size, flip=False, shift_px=0)

    def train(seed: int) -> Trained:
        network = image_network(family, params, dataset.dimensions, len(dataset.names))
        budget = learning.image if epochs is None else learning.image.for_epochs(epochs)
        how = learning.with_rate(params.learning_rate)

        def draw(epoch: int) -> TrainingBatches:
            return dataset.training_batches(plain, seed, epoch, CPU)

        return Trained(network, spend(network, draw, budget, how, f"{title}, seed {seed}"))

    return per_seed(learning, train)
