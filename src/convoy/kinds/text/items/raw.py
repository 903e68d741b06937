"""Raw texts: characters, in a file or in the cell of a table."""

from collections.abc import Sequence

RAW = str
SUFFIXES = (".txt",)  # of files; others are ignored
COLUMN = "text"  # of a table to score


def as_sent(contents: Sequence[str]) -> list[str]:
    """Texts of a prepared split as a user would send them."""
    return list(contents)


def to_example(raw: str) -> str:
    """As examples.json holds it: as it is."""
    return raw


def from_example(example: str) -> str:
    """What `to_example` took."""
    return example


def shown(raws: Sequence[str]) -> str:
    """The one to show as an example: the shortest."""
    return min(raws, key=len)
