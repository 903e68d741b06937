"""Prepared images -> smaller networks of a family, for as many epochs as its full one. Argument: family."""

import json
import sys
from typing import Any

import torch
from pydantic import Field

from convoy.core import atomic, stage
from convoy.core.params import Section, read_section
from lab.images.networks import ImageCnnParams
from lab.images.subset import Images, read_image_subset, train_images
from lab.layout import PARAMS, Family, learnt, sized
from lab.learning import costs, measuring
from lab.learning.families import Families, FeedForwardParams
from lab.learning.items import DataParams
from lab.learning.training import LearningParams


class SizesParams(Section):
    """Widths of the layers of each smaller network, the smallest first."""

    cnn: tuple[tuple[int, ...], ...] = Field(min_length=1)
    mlp: tuple[tuple[int, ...], ...] = Field(min_length=1)


def main(family: Family) -> None:
    """One training per size and seed."""
    params = read_section(SizesParams, "sizes", path=PARAMS)
    learning = read_section(LearningParams, "learning", path=PARAMS)
    full = read_section(Families[ImageCnnParams], "families", "image", path=PARAMS)
    subset = read_image_subset(read_section(DataParams, "data", path=PARAMS))
    epochs = json.loads(learnt("image", family).read_bytes())["cost"]["epochs"]
    networks: list[ImageCnnParams | FeedForwardParams]
    if family == "cnn":
        networks = [ImageCnnParams(channels=each, learning_rate=full.cnn.learning_rate) for each in params.cnn]
    else:
        networks = [FeedForwardParams(hidden=each, learning_rate=full.mlp.learning_rate) for each in params.mlp]
    report = {"sizes": [_measure(family, each, learning, subset, epochs) for each in networks]}
    atomic.write_json(sized(family), report)


def _measure(
    family: Family,
    params: ImageCnnParams | FeedForwardParams,
    learning: LearningParams,
    subset: Images,
    epochs: float,
) -> dict[str, Any]:
    trained = train_images(family, params, learning, subset.learn, f"images, smaller {family}", epochs)
    found = measuring.answers(trained, subset.ask)
    weights = costs.count_weights(trained[0].network)
    print(f"images, {family} of {weights:,} weights: accuracy {found.mean():.4f}", flush=True)
    return {"weights": weights, "per_seed": measuring.rounded(found.mean(axis=1))}


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    stage.run(main, *sys.argv[1:])
