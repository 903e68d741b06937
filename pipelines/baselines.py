"""Train split -> what simple, well-known models say of the test split: the measure of every candidate of both tasks."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from convoy.core import atomic, paths, spreadsheet, stage
from convoy.core.params import Section, read_section
from convoy.core.paths import Task
from convoy.evaluation.metrics import accuracy
from convoy.kinds.image import baselines as image_baselines
from convoy.kinds.image.prepared import read_images
from convoy.kinds.text import baselines as text_baselines
from convoy.kinds.text.prepared import read_texts

Predictions = Iterator[tuple[str, NDArray[np.int64]]]


class Params(Section):
    """The section baselines of params.yaml."""

    seed: int
    image: dict[str, image_baselines.ImageBaseline]
    text: text_baselines.TextBaselines


def main() -> None:
    """Train all baselines, the quick ones of texts first."""
    params = read_section(Params, "baselines")
    texts, asked_texts = (read_texts(paths.prepared("text", split)) for split in ("train", "test"))
    images, asked_images = (read_images(paths.prepared("image", split)) for split in ("train", "test"))
    of_texts = text_baselines.predictions(params.text, texts, asked_texts.texts, params.seed)
    of_images = image_baselines.predictions(params.image, images, asked_images.images, params.seed)
    report = {
        "text": _judge("text", of_texts, asked_texts.labels, texts.names),
        "image": _judge("image", of_images, asked_images.labels, images.names),
    }
    atomic.write_json(paths.BASELINES, report)


def _judge(
    task: Task, predictions: Predictions, labels: NDArray[np.int64], names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Figures of each baseline; writes the table of its predictions, which evaluate compares item by item."""
    figures, columns = {}, {"actual": labels}
    for name, predicted in predictions:
        figures[name], columns[name] = accuracy(predicted == labels), predicted
        print(f"{task}, baseline {name}: test {figures[name]}", flush=True)
    rows = [[names[label] for label in row] for row in zip(*columns.values(), strict=True)]
    atomic.write_bytes(paths.baselines(task), spreadsheet.to_csv([list(columns), *rows]).encode())
    return figures


if __name__ == "__main__":
    stage.run(main)
