"""A table -> its columns of content, label and split: those that an option or params.yaml names, else likely ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os.path import isfile  # Path.is_file raises for a cell that is too long for a name
from pathlib import Path

from convoy.core.paths import Task
from convoy.data.raw import MAX_LABELS
from convoy.sources import tables
from convoy.sources.items import SPLIT_NAMES, SourceRefused

_NAMES = {
    "text": ("text", "review", "sentence", "content", "message", "body", "comment", "title", "document"),
    "image": ("path", "image", "file", "filename", "file_name", "image_path", "filepath"),
    "label": ("label", "class", "category", "target", "sentiment", "y", "labels", "classname"),
    "split": ("split", "subset", "partition", "set", "fold"),
}
_SPLIT_WORDS = {"split", "splits", "subset", "partition", "fold", "folds"}  # also as a part of a name: data_split
Rows = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where nobody names one."""

    content: str | None = None
    label: str | None = None
    split: str | None = None

    def named(self) -> dict[str, str]:
        """By what they are for, those that are named."""
        return {key: name for key, name in asdict(self).items() if name is not None}


@dataclass
class Choice:
    """The columns, why each of content and label is it ("" where params.yaml says so already), and what else may be."""

    content: str = ""
    label: str = ""
    split: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


class Chooser:
    """Chooses among the columns of one table, of which it has seen some rows."""

    def __init__(self, task: Task, table: Path, encoding: str, rows: Rows, options: Columns, kept: Columns) -> None:
        self._task, self._table, self._encoding, self._rows = task, table, encoding, rows
        self._names = list(dict.fromkeys(str(name) for row in rows for name in row))
        self._choice = Choice()
        for key, name in options.named().items():
            if name not in self._names:
                raise SourceRefused(f"{table} has no column {name!r} (--{key}), it has {', '.join(self._names)}")
        self._asked = options.named()
        self._kept = {key: name for key, name in kept.named().items() if name in self._names}

    def choose(self) -> Choice:
        """Raises SourceRefused where a column is missing, or none looks like what is needed."""
        self._choice.split = self._split()
        self._choice.label = self._taken("label", self._split_like()) or self._label()
        self._choice.content = self._taken("content", {self._choice.label}) or self._content()
        if self._choice.label == self._choice.content:
            raise SourceRefused(f"{self._table}: --label and --content name the same column {self._choice.label!r}")
        used = {self._choice.content, self._choice.label, self._choice.split}
        self._choice.doubts += [
            f"column {name!r} looks like a split and is not used; --split names one of train, test and so on"
            for name in self._names
            if name in self._split_like() - used
        ]
        return self._choice

    def _taken(self, key: str, unfit: set[str]) -> str | None:
        """The column that an option names, or else params.yaml, if it may."""
        asked, kept = self._asked.get(key), self._kept.get(key)
        if asked:
            self._choice.reasons[key] = f"as --{key} says"
        elif kept and kept not in unfit and kept not in self._asked.values():
            self._choice.reasons[key] = ""
            return kept
        else:
            self._choice.reasons[key] = "as found in the table"
        return asked

    def _split(self) -> str | None:
        """The column of a division: named as one, and so is all that is in it; a `set` may be one of other things."""
        asked = self._asked.get("split")
        if asked and not self._names_splits(asked):
            values = list(dict.fromkeys(str(row.get(asked)) for row in self._rows))[:5]
            raise SourceRefused(
                f"{self._table}: --split {asked} has {', '.join(values)}; known are {', '.join(SPLIT_NAMES)}; "
                "without --split Convoy divides the data itself"
            )
        by_name = [name for role in _NAMES["split"] for name in self._names if name.lower() == role]
        kept = [self._kept["split"]] if "split" in self._kept else []
        free = [name for name in [*kept, *by_name] if name not in self._asked.values()]
        return asked or next((name for name in free if self._names_splits(name)), None)

    def _names_splits(self, name: str) -> bool:
        return all(_is_split(row[name]) for row in self._rows if name in row)

    def _split_like(self) -> set[str]:
        """Columns that are never the label, unless an option says so: they tell train from test."""
        return {name for name in self._names if _is_named_split(name) or self._names_splits(name)}

    def _label(self) -> str:
        unfit = self._split_like() | {*self._asked.values()}
        named = [name for role in _NAMES["label"] for name in self._names if name.lower() == role and name not in unfit]
        if named:
            self._doubt("label", named[1:])
            return named[0]
        counts, total = _count_values(self._table, self._encoding)
        content = self._kept.get("content")
        found = {name: n for name, n in counts.items() if name not in unfit and name != content and 1 < n <= MAX_LABELS}
        if not found:
            left = f" ({', '.join(sorted(self._split_like()))} looks like a split)" if self._split_like() else ""
            raise SourceRefused(
                f"{self._table}: no column looks like labels among {', '.join(self._names)}{left}; "
                "name the one that holds them with --label"
            )
        best = min(found, key=lambda name: found[name])
        # What hardly repeats itself, as ids and texts, is no label either.
        self._doubt("label", [name for name, n in found.items() if name != best and 2 * n <= total])
        return best

    def _content(self) -> str:
        taken = {self._choice.label, self._choice.split, *self._asked.values()}
        free = [name for name in self._names if name not in taken]
        if not free:
            raise SourceRefused(
                f"{self._table} has the column {self._choice.label!r} alone; "
                f"one of the {self._task} itself is expected beside it"
            )
        lengths = {name: sum(len(str(row.get(name))) for row in self._rows) for name in free}
        longest = max(lengths, key=lambda name: lengths[name])
        named = [name for role in _NAMES[self._task] for name in free if name.lower() == role]
        if self._task == "image":
            of_files = [name for name in files_in(self._rows, self._table.parent) if name in free]
            return next(iter([*named, *of_files]), longest)
        if named and longest != named[0]:
            self._doubt("content", [longest])
        return named[0] if named else longest

    def _doubt(self, key: str, others: Sequence[str]) -> None:
        if others:
            self._choice.doubts.append(f"the {key} could also be {' or '.join(map(repr, others))}: --{key} names it")


def files_in(rows: Rows, folder: Path) -> list[str]:
    """The columns that name files, from the table's folder."""
    return [name for name in rows[0] if any(isfile(folder / str(row.get(name))) for row in rows)]


def _is_split(cell: object) -> bool:
    return str(cell).strip().lower() in SPLIT_NAMES


def _is_named_split(name: str) -> bool:
    return name.lower() in _NAMES["split"] or not _SPLIT_WORDS.isdisjoint(name.lower().replace("-", "_").split("_"))


def _count_values(table: Path, encoding: str) -> tuple[dict[str, int], int]:
    """Different values by column, at most one more than labels may be, and all rows; not of columns that tell splits.

    The whole table is read, which may be sorted by its label.
    """
    values: dict[str, set[str]] = {}
    total = 0
    for _, row in tables.rows_of(table, encoding):
        total += 1
        for name, cell in row.items() if isinstance(row, dict) else ():
            seen = values.setdefault(str(name), set())
            if len(seen) <= MAX_LABELS:
                seen.add(str(cell))
    return {name: len(seen) for name, seen in values.items() if not all(map(_is_split, seen))}, total
