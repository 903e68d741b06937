"""Chooses a table's columns of content, label and split: named by an option or params.yaml, else likely ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os.path import isfile  # Path.is_file raises for a cell that is too long for a name
from pathlib import Path

from convoy.data.raw import MAX_LABELS
from convoy.kinds.registry import module
from convoy.sources import tables
from convoy.sources.items import SPLIT_NAMES, SourceRefused

_COMMON_NAMES = {
    "label": ("label", "class", "category", "target", "sentiment", "y", "labels", "classname"),
    "split": ("split", "subset", "partition", "set", "fold"),
}
_SPLIT_WORDS = {"split", "splits", "subset", "partition", "fold", "folds"}  # also as a part of a name: data_split
Rows = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where none is named."""

    content: str | None = None
    label: str | None = None
    split: str | None = None

    def named(self) -> dict[str, str]:
        """The named columns, by their role."""
        return {key: name for key, name in asdict(self).items() if name is not None}


@dataclass
class Choice:
    """The columns; why content and label were chosen ("" where params.yaml names them); which others are possible."""

    content: str = ""
    label: str = ""
    split: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


class Chooser:
    """Chooses among the columns of one table by some of its rows."""

    def __init__(self, kind: str, table: Path, encoding: str, rows: Rows, options: Columns, kept: Columns) -> None:
        self._kind, self._table, self._encoding, self._rows = kind, table, encoding, rows
        self._names = list(dict.fromkeys(str(name) for row in rows for name in row))
        self._choice = Choice()
        for key, name in options.named().items():
            if name not in self._names:
                raise SourceRefused(f"{table} has no column {name!r} (--{key}), it has {', '.join(self._names)}")
        self._options = options.named()
        self._kept = {key: name for key, name in kept.named().items() if name in self._names}

    def choose(self) -> Choice:
        """Raises SourceRefused where a column is missing, or none looks like what is needed."""
        self._choice.split = self._choose_split()
        self._choice.label = self._preferred("label", self._split_like_columns()) or self._choose_label()
        self._choice.content = self._preferred("content", {self._choice.label}) or self._choose_content()
        if self._choice.label == self._choice.content:
            raise SourceRefused(f"{self._table}: --label and --content name the same column {self._choice.label!r}")
        used = {self._choice.content, self._choice.label, self._choice.split}
        self._choice.doubts += [
            f"column {name!r} looks like a split and is not used; --split names one of train, test and so on"
            for name in self._names
            if name in self._split_like_columns() - used
        ]
        return self._choice

    def _preferred(self, key: str, excluded: set[str]) -> str | None:
        """The column that an option names, else the one of params.yaml unless it is excluded."""
        option, kept = self._options.get(key), self._kept.get(key)
        if option:
            self._choice.reasons[key] = f"as --{key} says"
        elif kept and kept not in excluded and kept not in self._options.values():
            self._choice.reasons[key] = ""
            return kept
        else:
            self._choice.reasons[key] = "as found in the table"
        return option

    def _choose_split(self) -> str | None:
        """The column of the split: its name and all its values are those of splits; a `set` may hold other things."""
        option = self._options.get("split")
        if option and not self._holds_splits(option):
            values = list(dict.fromkeys(str(row.get(option)) for row in self._rows))[:5]
            raise SourceRefused(
                f"{self._table}: --split {option} has {', '.join(values)}; known are {', '.join(SPLIT_NAMES)}; "
                "without --split Convoy divides the data itself"
            )
        by_name = [name for role in _COMMON_NAMES["split"] for name in self._names if name.lower() == role]
        kept = [self._kept["split"]] if "split" in self._kept else []
        free = [name for name in [*kept, *by_name] if name not in self._options.values()]
        return option or next((name for name in free if self._holds_splits(name)), None)

    def _holds_splits(self, name: str) -> bool:
        return all(_is_split(row[name]) for row in self._rows if name in row)

    def _split_like_columns(self) -> set[str]:
        """Columns that are never the label, unless an option says so: they separate train from test."""
        return {name for name in self._names if _has_split_name(name) or self._holds_splits(name)}

    def _choose_label(self) -> str:
        excluded = self._split_like_columns() | {*self._options.values()}
        named = [
            name
            for role in _COMMON_NAMES["label"]
            for name in self._names
            if name.lower() == role and name not in excluded
        ]
        if named:
            self._add_doubt("label", named[1:])
            return named[0]
        counts, total = _count_values(self._table, self._encoding)
        content = self._kept.get("content")
        candidates = {
            name: n for name, n in counts.items() if name not in excluded and name != content and 1 < n <= MAX_LABELS
        }
        if not candidates:
            left = (
                f" ({', '.join(sorted(self._split_like_columns()))} looks like a split)"
                if self._split_like_columns()
                else ""
            )
            raise SourceRefused(
                f"{self._table}: no column looks like labels among {', '.join(self._names)}{left}; "
                "name the one that holds them with --label"
            )
        best = min(candidates, key=lambda name: candidates[name])
        # Columns whose values hardly repeat, as ids and texts, are no labels either.
        self._add_doubt("label", [name for name, n in candidates.items() if name != best and 2 * n <= total])
        return best

    def _choose_content(self) -> str:
        taken = {self._choice.label, self._choice.split, *self._options.values()}
        free = [name for name in self._names if name not in taken]
        if not free:
            raise SourceRefused(
                f"{self._table} has the column {self._choice.label!r} alone; "
                f"one of the {self._kind} itself is expected beside it"
            )
        lengths = {name: sum(len(str(row.get(name))) for row in self._rows) for name in free}
        longest = max(lengths, key=lambda name: lengths[name])
        named = [name for role in module(self._kind, "survey").COLUMN_NAMES for name in free if name.lower() == role]
        if holds_files(self._kind):
            of_files = [name for name in files_in(self._rows, self._table.parent) if name in free]
            return next(iter([*named, *of_files]), longest)
        if named and longest != named[0]:
            self._add_doubt("content", [longest])
        return named[0] if named else longest

    def _add_doubt(self, key: str, others: Sequence[str]) -> None:
        if others:
            self._choice.doubts.append(f"the {key} could also be {' or '.join(map(repr, others))}: --{key} names it")


def holds_files(kind: str) -> bool:
    """Whether a cell of a table of this kind is the path of a file."""
    return bool(module(kind, "items.raw").RAW is bytes)


def files_in(rows: Rows, folder: Path) -> list[str]:
    """The columns that name files relative to the table's folder."""
    return [name for name in rows[0] if any(isfile(folder / str(row.get(name))) for row in rows)]


def _is_split(cell: object) -> bool:
    return str(cell).strip().lower() in SPLIT_NAMES


def _has_split_name(name: str) -> bool:
    return name.lower() in _COMMON_NAMES["split"] or not _SPLIT_WORDS.isdisjoint(
        name.lower().replace("-", "_").split("_")
    )


def _count_values(table: Path, encoding: str) -> tuple[dict[str, int], int]:
    """The number of distinct values by column, without split columns, and the number of rows.

    Counts to one more than the labels may be. Reads the whole table, which may be sorted by its label.
    """
    values: dict[str, set[str]] = {}
    total = 0
    for _, row in tables.rows_of(table, encoding):
        total += 1
        for name, cell in row.items() if isinstance(row, dict) else ():
            distinct = values.setdefault(str(name), set())
            if len(distinct) <= MAX_LABELS:
                distinct.add(str(cell))
    return {name: len(distinct) for name, distinct in values.items() if not all(map(_is_split, distinct))}, total
