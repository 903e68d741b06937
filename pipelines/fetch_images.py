"""The images that params.yaml names, whatever form they come in -> data/raw/image."""

from typing import Literal

from convoy.core import paths, stage
from convoy.core.params import read_section
from convoy.data import raw
from convoy.sources import arrays, fashion_mnist, folders, tables
from convoy.sources.download import SourceUnavailable
from convoy.sources.items import ItemsAndRejections, SourceParams, SourceRefused


class Params(SourceParams):
    """The section fetch_images of params.yaml."""

    source: Literal["fashion-mnist", "folder", "table", "arrays"]


def main() -> None:
    """Read the source once; no later stage depends on its kind."""
    params = read_section(Params, "fetch_images")
    entries, labels = _read_source(params)
    raw.write(paths.raw("image"), "image", entries, params.labels or labels)


def _read_source(params: Params) -> tuple[ItemsAndRejections, tuple[str, ...] | None]:
    """The items, and the order of their labels where the source has one."""
    match params.source:
        case "fashion-mnist":
            published = fashion_mnist.describe(params.path)
            return fashion_mnist.read(published), published.labels
        case "folder":
            return folders.read(params, "image"), None
        case "table":
            return tables.read(params, "image"), None
        case "arrays":
            return arrays.read(params), None


if __name__ == "__main__":
    stage.run(main, refusals=(SourceRefused, SourceUnavailable))
