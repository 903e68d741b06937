"""Prepared images -> one family trained and asked with all pixels in one other order. Argument: family."""

import sys

import torch

from convoy.core import atomic, stage
from convoy.core.params import read_section
from lab.images.networks import ImageCnnParams
from lab.images.space import SpaceParams, permute
from lab.images.subset import read_image_subset, train_images, with_images
from lab.layout import PARAMS, Family, permuted
from lab.learning import measuring
from lab.learning.families import Families
from lab.learning.items import DataParams
from lab.learning.training import LearningParams


def main(family: Family) -> None:
    """The same order for every image, learnt from or asked: nothing is lost but what is beside what."""
    learning = read_section(LearningParams, "learning", path=PARAMS)
    seed = read_section(SpaceParams, "space", path=PARAMS).seed
    params = read_section(Families[ImageCnnParams], "families", "image", path=PARAMS).of(family)
    subset = read_image_subset(read_section(DataParams, "data", path=PARAMS))
    learn, ask = (with_images(each, permute(each.arrays, seed), each.labels) for each in (subset.learn, subset.ask))
    trained = train_images(family, params, learning, learn, f"permuted images, {family}")
    found = measuring.answers(trained, ask)
    atomic.write_json(permuted(family), {"accuracy": measuring.accuracy(found)})
    print(f"permuted images, {family}: accuracy {found.mean():.4f}", flush=True)


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    stage.run(main, *sys.argv[1:])
