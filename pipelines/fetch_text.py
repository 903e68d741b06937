"""The texts that params.yaml names, whatever form they come in -> data/raw/text."""

from typing import Literal

from convoy.core import paths, stage
from convoy.core.params import read_section
from convoy.data import raw
from convoy.sources import folders, imdb_reviews, tables
from convoy.sources.download import SourceUnavailable
from convoy.sources.items import ItemsAndRejections, SourceParams, SourceRefused


class Params(SourceParams):
    """The section fetch_text of params.yaml."""

    source: Literal["imdb-reviews", "folder", "table"]


def main() -> None:
    """Read the source once; no later stage depends on its kind."""
    params = read_section(Params, "fetch_text")
    entries, labels = _read_source(params)
    raw.write(paths.raw("text"), "text", entries, params.labels or labels)


def _read_source(params: Params) -> tuple[ItemsAndRejections, tuple[str, ...] | None]:
    """The items, and the order of their labels where the source has one."""
    match params.source:
        case "imdb-reviews":
            published = imdb_reviews.describe(params.path)
            return imdb_reviews.read(published), published.labels
        case "folder":
            return folders.read(params, "text"), None
        case "table":
            return tables.read(params, "text"), None


if __name__ == "__main__":
    stage.run(main, refusals=(SourceRefused, SourceUnavailable))
