"""The one list of sources. A source is a module with KINDS, the kinds of data that it has, and `read`.

`read(params, kind)` yields items and rejections. A source whose labels have an order of their own has `label_order`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from convoy.sources.items import ItemsAndRejections, SourceParams, SourceRefused

SOURCES = {
    "folder": "folders",
    "table": "tables",
    "arrays": "arrays",
    "fashion-mnist": "fashion_mnist",
    "imdb-reviews": "imdb_reviews",
}


class Source(Protocol):
    """A module of this package."""

    KINDS: tuple[str, ...]

    def read(self, params: SourceParams, kind: str) -> ItemsAndRejections:
        """The items and what is none. Raises SourceRefused for a source that cannot be used as it is."""


def find(name: str, kind: str) -> Source:
    """The source of this name. Raises SourceRefused where there is none for this kind of data."""
    source = cast(Source, import_module(f"convoy.sources.{SOURCES[name]}")) if name in SOURCES else None
    if source is None or kind not in source.KINDS:
        names = [other for other in SOURCES if kind in import_module(f"convoy.sources.{SOURCES[other]}").KINDS]
        raise SourceRefused(f"source: {name!r} is no source of {kind} data; these are: {', '.join(names)}")
    return source


def label_order(source: Source, params: SourceParams) -> tuple[str, ...] | None:
    """The labels in the order that the source gives them; None: they are sorted."""
    order: Callable[[SourceParams], tuple[str, ...]] | None = getattr(source, "label_order", None)
    return order(params) if order else None
