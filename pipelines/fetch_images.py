"""Published image files -> data/raw/image, verified."""

from typing import Literal

from convoy import layout, stage
from convoy.params import Section, read_section
from convoy.sources import fashion_mnist
from convoy.sources.download import SourceUnavailable


class Params(Section):
    """The section fetch_images of params.yaml."""

    source: Literal["fashion-mnist"]


def main() -> None:
    """Fetch the source that params.yaml names; there is one as yet."""
    read_section(Params, "fetch_images")
    fashion_mnist.fetch(layout.raw("image"))


if __name__ == "__main__":
    stage.run(main, refusals=(SourceUnavailable,))
