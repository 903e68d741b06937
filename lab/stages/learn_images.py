"""Prepared images -> one family trained on them, its costs, and what it sees of space. Argument: family."""

import sys

import torch

from convoy.core import atomic, stage
from convoy.core.params import read_section
from lab.images.networks import ImageCnnParams
from lab.images.space import Images, SpaceParams, hide, shift
from lab.images.subset import read_image_subset, train_images, with_images
from lab.layout import PARAMS, Family, learnt
from lab.learning import measuring
from lab.learning.families import Families
from lab.learning.items import DataParams
from lab.learning.training import CPU, LearningParams


def main(family: Family) -> None:
    """Train, then ask: the images as they are, shifted, partly hidden."""
    learning = read_section(LearningParams, "learning", path=PARAMS)
    space = read_section(SpaceParams, "space", path=PARAMS)
    params = read_section(Families[ImageCnnParams], "families", "image", path=PARAMS).of(family)
    subset = read_image_subset(read_section(DataParams, "data", path=PARAMS))
    trained = train_images(family, params, learning, subset.learn, f"images, {family}")
    asked = subset.ask
    intact = measuring.answers(trained, asked)

    def changed(images: Images) -> measuring.Right:
        return measuring.answers(trained, with_images(asked, images, asked.labels))

    batch, _ = next(iter(subset.learn.evaluation_batches(learning.image.batch_size, CPU)))
    report = {
        "seeds": learning.seeds,
        "asked": len(asked.labels),
        "learnt_from": len(subset.learn.labels),
        "chance": 1 / len(asked.names),
        "accuracy": measuring.accuracy(intact),
        "cost": measuring.cost(trained, batch[:1], batch),
        "loss": measuring.losses(trained),
        "shift": measuring.curve(intact, ((px, changed(shift(asked.arrays, px))) for px in space.shifts_px)),
        "hide": measuring.curve(intact, ((px, changed(hide(asked.arrays, px, space.seed))) for px in space.patches_px)),
    }
    atomic.write_json(learnt("image", family), report)
    print(f"images, {family}: accuracy {intact.mean():.4f}", flush=True)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # denormal numbers cost a recurrent network twenty times the time
    stage.run(main, *sys.argv[1:])
