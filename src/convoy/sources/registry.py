"""The one list of sources: for each its module and the kinds of data that it has.

`read(params, kind)` yields items and rejections. A source whose labels have an order of their own has `label_order`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from convoy.kinds.registry import KINDS
from convoy.sources.items import ItemsAndRejections, SourceParams, SourceRefused

SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "folder": ("folders", KINDS),
    "table": ("tables", KINDS),
    "arrays": ("arrays", ("image",)),
    "fashion-mnist": ("fashion_mnist", ("image",)),
    "imdb-reviews": ("imdb_reviews", ("text",)),
}


class Source(Protocol):
    """A module of this package."""

    def read(self, params: SourceParams, kind: str) -> ItemsAndRejections:
        """The items and what is none. Raises SourceRefused for a source that cannot be used as it is."""


def find(name: str, kind: str) -> Source:
    """The source of this name. Raises SourceRefused where there is none for this kind of data."""
    if not is_for(name, kind):
        names = [other for other in SOURCES if is_for(other, kind)]
        raise SourceRefused(f"{name!r} is no source of {kind} data; these are: {', '.join(names)}")
    return cast(Source, import_module(f"convoy.sources.{SOURCES[name][0]}"))


def is_for(name: str, kind: str) -> bool:
    """Whether there is a source of this name that has data of this kind."""
    return kind in SOURCES.get(name, ("", ()))[1]


def label_order(source: Source, params: SourceParams) -> tuple[str, ...] | None:
    """The labels in the order that the source gives them; None: they are sorted."""
    order: Callable[[SourceParams], tuple[str, ...]] | None = getattr(source, "label_order", None)
    return order(params) if order else None
