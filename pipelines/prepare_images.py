"""data/raw/image -> one Arrow file per split, duplicates out, and the counts of all that was kept and dropped."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from tqdm import tqdm

from convoy import atomic, layout, stage
from convoy.params import Section, read_section
from convoy.prepared.image import ImageSplit, write_images
from convoy.preprocessing.image import ImagePreprocessing, ImagePreprocessor
from convoy.sources import fashion_mnist
from convoy.splits import count_labels, cut, digests, distinct, held_out


class Params(Section):
    """The section prepare_images of params.yaml; a max of null is all."""

    seed: int
    validation_share: float = Field(gt=0, lt=1)
    calibration_share: float = Field(gt=0, lt=1)
    max_train: int | None
    max_validation: int | None
    max_calibration: int | None
    max_test: int | None
    preprocessing: ImagePreprocessing


def main() -> None:
    """Prepare the images. The official test set is kept whole: nothing but a damaged file could leave it."""
    params = read_section(Params, "prepare_images")
    raw = layout.raw("image")
    images, labels = fashion_mnist.read(raw, "train")
    test_images, test_labels = fashion_mnist.read(raw, "t10k")
    test_keys = digests(image.tobytes() for image in test_images)
    kept, dropped = distinct(digests(image.tobytes() for image in images), labels, taken=set(test_keys))
    train, validation, calibration = held_out(
        labels[kept], params.validation_share, params.calibration_share, params.seed
    )
    whole = {"train": kept[train], "validation": kept[validation], "calibration": kept[calibration]}
    whole["test"] = np.arange(len(test_labels))
    rows, dropped["over_max"] = cut(whole, {name: getattr(params, f"max_{name}") for name in layout.SPLITS})
    counts = {}
    for name in layout.SPLITS:
        pixels, of_split = (test_images, test_labels) if name == "test" else (images, labels)
        converted = _convert(pixels[rows[name]], params.preprocessing, name)
        split_labels = of_split[rows[name]]
        write_images(layout.prepared("image", name), ImageSplit(converted, split_labels, fashion_mnist.LABELS))
        counts[name] = count_labels(split_labels, fashion_mnist.LABELS)
    atomic.write_json(layout.contract("image"), params.preprocessing.model_dump(mode="json"))
    report = {"raw": len(labels) + len(test_labels), "dropped": dropped}
    atomic.write_json(layout.reports("image") / "data.json", {**report, "splits": counts})
    print(f"images: dropped {dropped}, kept { {name: count['n'] for name, count in counts.items()} }")


def _convert(pixels: NDArray[np.uint8], contract: ImagePreprocessing, name: str) -> NDArray[np.uint8]:
    """By the code that serving uses, so that training sees what will be served: (n, size, size, channels) uint8."""
    preprocessor = ImagePreprocessor(contract)
    progress = tqdm(pixels, desc=f"images {name}", mininterval=1)
    return np.stack([preprocessor.convert(Image.fromarray(image)).array for image in progress])


if __name__ == "__main__":
    stage.run(main)
