"""Train split -> predictions of simple, well-known models on the test split, with which candidates are compared."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from convoy.core import atomic, paths, spreadsheet, stage
from convoy.core.params import Section, read_section
from convoy.core.paths import Task
from convoy.evaluation.metrics import accuracy
from convoy.kinds.image import baselines as image_baselines
from convoy.kinds.image.prepared import read as read_images
from convoy.kinds.text import baselines as text_baselines
from convoy.kinds.text.prepared import read as read_texts

Predictions = Iterator[tuple[str, NDArray[np.int64]]]


class Params(Section):
    """The section baselines of params.yaml."""

    seed: int
    image: dict[str, image_baselines.ImageBaseline]
    text: text_baselines.TextBaselines


def main() -> None:
    """Train all baselines; those of texts, which are quick, come first."""
    params = read_section(Params, "baselines")
    train_texts, test_texts = (read_texts(paths.prepared("text", split)) for split in ("train", "test"))
    train_images, test_images = (read_images(paths.prepared("image", split)) for split in ("train", "test"))
    text_predictions = text_baselines.predictions(params.text, train_texts, test_texts.contents, params.seed)
    image_predictions = image_baselines.predictions(params.image, train_images, test_images.contents, params.seed)
    report = {
        "text": _measure("text", text_predictions, test_texts.labels, train_texts.names),
        "image": _measure("image", image_predictions, test_images.labels, train_images.names),
    }
    atomic.write_json(paths.BASELINES, report)


def _measure(
    task: Task, predictions: Predictions, labels: NDArray[np.int64], names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Measure each baseline, and write the table of the predictions, which evaluate compares item by item."""
    figures, columns = {}, {"actual": labels}
    for name, predicted in predictions:
        figures[name], columns[name] = accuracy(predicted == labels), predicted
        print(f"{task}, baseline {name}: test {figures[name]}", flush=True)
    rows = [[names[label] for label in row] for row in zip(*columns.values(), strict=True)]
    atomic.write_bytes(paths.baselines(task), spreadsheet.to_csv([list(columns), *rows]).encode())
    return figures


if __name__ == "__main__":
    stage.run(main)
