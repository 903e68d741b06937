"""The prepared train split -> what the laboratory learns from and what it asks; no other split is ever read."""

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy import layout
from convoy.datasets.image import ImageDataset
from convoy.datasets.text import TextDataset
from convoy.layout import Task
from convoy.params import Section


class Share(Section):
    """How many items at most are learnt from, and how many at most are asked; of few data a quarter is asked."""

    learn: int = Field(ge=1)
    ask: int = Field(ge=1)


class DataParams(Section):
    """The section data: which items of the train split; a seed draws them."""

    seed: int
    image: Share
    text: Share


@dataclass(frozen=True)
class Images:
    """What is learnt from, and what is asked."""

    learn: ImageDataset
    ask: ImageDataset


@dataclass(frozen=True)
class Texts:
    """What is learnt from, and what is asked."""

    learn: TextDataset
    ask: TextDataset


def divide(count: int, share: Share, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (learn,) and (ask,) of `count` items, drawn without overlap, each sorted."""
    order = np.random.default_rng(seed).permutation(count)
    asked = min(share.ask, count // 4)
    return np.sort(order[asked : asked + share.learn]), np.sort(order[:asked])


def read_image_subset(params: DataParams) -> Images:
    """Images of the train split."""
    dataset = ImageDataset(layout.prepared("image", "train"))
    learn, ask = divide(len(dataset.labels), params.image, params.seed)
    return Images(*(with_images(dataset, dataset.arrays[rows], dataset.labels[rows]) for rows in (learn, ask)))


def read_text_subset(params: DataParams) -> Texts:
    """Texts of the train split, as token ids."""
    dataset = TextDataset(layout.prepared("text", "train"))
    learn, ask = divide(len(dataset.labels), params.text, params.seed)
    parts = [with_texts(dataset, [dataset.arrays[row] for row in rows], dataset.labels[rows]) for rows in (learn, ask)]
    return Texts(*parts)


def train_file(task: Task) -> str:
    """Which file the items come from."""
    return str(layout.prepared(task, "train"))


def with_images(dataset: ImageDataset, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageDataset:
    """A data set like this one, of other images (n, height, width, channels) and labels (n,)."""
    other = copy(dataset)
    other.arrays, other.labels = images, labels
    other.evaluation_order = np.arange(len(labels))
    return other


def with_texts(dataset: TextDataset, texts: list[NDArray[np.int32]], labels: NDArray[np.int64]) -> TextDataset:
    """A data set like this one, of other token ids, (tokens,) each, and labels (n,)."""
    other = copy(dataset)
    other.arrays, other.labels = texts, labels
    other.lengths = np.array([len(text) for text in texts])
    other.evaluation_order = np.argsort(other.lengths, kind="stable")
    return other
