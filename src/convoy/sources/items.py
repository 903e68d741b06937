"""What a source yields: items with their label, and rejections with the reason; the settings of a source."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from convoy.core.params import Section

# Names that people give to splits, in folders and in a column of a table.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "calibration": "calibration",
    "gate": "gate",
    "test": "test",
    "testing": "test",
}


class SourceRefused(ValueError):
    """A source that cannot be used as it is; the message names the file, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled input; `name` is its place (`cat/1.png`, `reviews.csv:12`), `split` is '' if the source has none."""

    name: str
    label: str
    split: str
    content: bytes | str


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is no item: an error in the data, or (`ignored`) something that was never meant to be one, as .DS_Store."""

    name: str
    code: str
    message: str
    ignored: bool = False


ItemsAndRejections = Iterator[Item | Rejection]


def label_name(cell: object) -> str:
    """A label as a name: numbers as they are written, whole ones without a point; '' for no label, as NaN."""
    if isinstance(cell, bytes):
        try:
            cell = cell.decode()
        except UnicodeDecodeError:
            return ""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


class TableParams(Section):
    """How a table is read: its name where a folder holds several, its columns, its encoding."""

    file: str | None
    content: str
    label: str
    split: str
    encoding: str


class SourceParams(Section):
    """The section data.<name>.fetch: a source of convoy.sources.registry; `labels` of null takes all labels."""

    source: str
    path: Path
    given_splits: bool
    labels: tuple[str, ...] | None = Field(min_length=2)
    table: TableParams
