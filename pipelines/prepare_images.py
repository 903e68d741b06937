"""data/raw/image -> one Arrow file per split, duplicates out, and the counts of all that was kept and dropped."""

from convoy import atomic, layout, stage
from convoy.params import read_section
from convoy.preparation.image import convert, gather
from convoy.prepared.image import ImageSplit, write_images
from convoy.preprocessing.image import ImagePreprocessing
from convoy.raw import RawItems
from convoy.splits import DivisionParams, LabelTooRare, count_labels, divide


class Params(DivisionParams):
    """The section prepare_images of params.yaml."""

    preprocessing: ImagePreprocessing


def main() -> None:
    """Prepare the images: as the model will see them, each in one split."""
    params = read_section(Params, "prepare_images")
    raw = RawItems(layout.raw("image"))
    scratch = layout.prepared("image", "train").parent
    converted = convert(raw, params.preprocessing, scratch)
    labels = raw.label_of[converted.rows]
    division = divide(converted.keys, labels, raw.given[converted.rows], raw.labels, params)
    counts = {}
    for name, rows in division.rows.items():
        images = gather(converted.pixels, rows, scratch)
        write_images(layout.prepared("image", name), ImageSplit(images, labels[rows], raw.labels))
        counts[name] = count_labels(labels[rows], raw.labels)
    atomic.write_json(layout.contract("image"), params.preprocessing.model_dump(mode="json"))
    report = {"raw": len(raw), "dropped": division.dropped, "splits": counts}
    atomic.write_json(layout.reports("image") / "data.json", report)
    print(f"images: dropped {division.dropped}, kept { {name: count['n'] for name, count in counts.items()} }")


if __name__ == "__main__":
    stage.run(main, refusals=(LabelTooRare,))
