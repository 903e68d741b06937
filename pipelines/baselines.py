"""Train split -> what simple, well-known models say of the test split: the measure of every candidate of both tasks."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from convoy import atomic, layout, stage
from convoy.baselines import image, text
from convoy.layout import Task
from convoy.metrics import accuracy
from convoy.params import Section, read_section
from convoy.prepared.image import read_images
from convoy.prepared.text import read_texts

Predictions = Iterator[tuple[str, NDArray[np.int64]]]


class Params(Section):
    """The section baselines of params.yaml."""

    seed: int
    image: dict[str, image.ImageBaseline]
    text: text.TextBaselines


def main() -> None:
    """Train all baselines, the quick ones of texts first."""
    params = read_section(Params, "baselines")
    texts, asked_texts = (read_texts(layout.prepared("text", split)) for split in ("train", "test"))
    images, asked_images = (read_images(layout.prepared("image", split)) for split in ("train", "test"))
    of_texts = text.predictions(params.text, texts, asked_texts.texts, params.seed)
    of_images = image.predictions(params.image, images, asked_images.images, params.seed)
    report = {
        "text": _judge("text", of_texts, asked_texts.labels, texts.names),
        "image": _judge("image", of_images, asked_images.labels, images.names),
    }
    atomic.write_json(layout.BASELINES, report)


def _judge(
    task: Task, predictions: Predictions, labels: NDArray[np.int64], names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Figures of each baseline; writes the table of its predictions, which evaluate compares item by item."""
    figures, columns = {}, {"actual": labels}
    for name, predicted in predictions:
        figures[name], columns[name] = accuracy(predicted == labels), predicted
        print(f"{task}, baseline {name}: test {figures[name]}", flush=True)
    stream = io.StringIO(newline="")
    # QUOTE_MINIMAL leaves a lone \r as it is, which ends the row for every reader.
    has_return = any("\r" in name for name in names)
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL)
    writer.writerow(columns)
    writer.writerows([names[label] for label in row] for row in zip(*columns.values(), strict=True))
    atomic.write_bytes(layout.baselines(task), stream.getvalue().encode())
    return figures


if __name__ == "__main__":
    stage.run(main)
