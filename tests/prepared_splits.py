"""Small prepared splits with something to learn, for tests of datasets, models and training."""

from pathlib import Path

import numpy as np

from convoy.kinds.image.prepared import Split as ImageSplit
from convoy.kinds.image.prepared import write as write_images
from convoy.kinds.text.prepared import Split as TextSplit
from convoy.kinds.text.prepared import write as write_texts

VOCABULARY = 50


def image_split(count: int = 90, size_px: int = 28) -> ImageSplit:
    """A bright bar on a dark ground, its place in three steps from top to bottom is the label."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = generator.integers(0, 60, (count, size_px, size_px, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top = size_px // 8 + label * size_px // 3
        image[top : top + 4, 4:-4] = 220
    return ImageSplit(images, labels.astype(np.int64), ("top", "middle", "bottom"))


def text_split(count: int = 90) -> TextSplit:
    """Token 2 somewhere makes a text positive, token 3 negative."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    tokens = [generator.integers(4, VOCABULARY, generator.integers(3, 40)).astype(np.int32) for _ in labels]
    for ids, label in zip(tokens, labels, strict=True):
        ids[generator.integers(len(ids))] = 3 - label
    texts = [" ".join(map(str, ids)) for ids in tokens]
    return TextSplit(texts, tokens, labels.astype(np.int64), ("negative", "positive"), VOCABULARY, 0)


def write_split(task: str, path: Path, count: int = 90) -> Path:
    if task == "image":
        write_images(path, image_split(count))
    else:
        write_texts(path, [text_split(count)])
    return path
