"""Published reviews -> data/raw/text, verified."""

from typing import Literal

from convoy import layout, stage
from convoy.params import Section, read_section
from convoy.sources import imdb_reviews
from convoy.sources.download import SourceUnavailable


class Params(Section):
    """The section fetch_text of params.yaml."""

    source: Literal["imdb-reviews"]


def main() -> None:
    """Fetch the source that params.yaml names; there is one as yet."""
    read_section(Params, "fetch_text")
    imdb_reviews.fetch(layout.raw("text"))


if __name__ == "__main__":
    stage.run(main, refusals=(SourceUnavailable,))
