"""data/raw/image -> one Arrow file per split, duplicates out, and the report of the data."""

from convoy.core import atomic, paths, stage
from convoy.core.params import read_section
from convoy.data.findings import PreflightLimits
from convoy.data.image_preparation import convert, gather, take_census
from convoy.data.raw import RawItems
from convoy.data.report import DataRefused, rejections_reported, summary, write_report
from convoy.data.splits import DivisionParams, DivisionRefused, divide, require_usable
from convoy.kinds.image.prepared import ImageSplit, write_images
from convoy.kinds.image.preprocessing import ImagePreprocessing


class Params(DivisionParams):
    """The section prepare_images of params.yaml."""

    preprocessing: ImagePreprocessing
    limits: PreflightLimits


def main() -> None:
    """Prepare the images as the model will see them, each in one split."""
    params = read_section(Params, "prepare_images")
    raw = RawItems(paths.raw("image"))
    scratch = paths.prepared("image", "train").parent
    converted = convert(raw, params.preprocessing, scratch)
    labels = raw.label_of[converted.rows]
    with rejections_reported("image", [*raw.rejections, *converted.rejections]):
        require_usable(raw.given, converted.rows)
        division = divide(converted.keys, labels, raw.given[converted.rows], raw.labels, params)
    census = take_census(raw, converted, division)
    findings = write_report("image", census, params.limits, lambda item: converted.pixels[item])
    for name, rows in division.rows.items():
        images = gather(converted.pixels, rows, scratch)
        write_images(paths.prepared("image", name), ImageSplit(images, labels[rows], raw.labels))
    atomic.write_json(paths.contract("image"), params.preprocessing.model_dump(mode="json"))
    atomic.write_json(paths.reports("image") / "data.json", summary(findings, len(raw)))
    print(f"images: dropped {division.dropped}, kept { {name: len(rows) for name, rows in division.rows.items()} }")


if __name__ == "__main__":
    stage.run(main, refusals=(DivisionRefused, DataRefused))
