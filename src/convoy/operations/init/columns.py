"""Chooses a table's columns of content, label and split: named by an option or params.yaml, else likely ones."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os.path import isfile  # Path.is_file raises for a cell that is too long for a name
from pathlib import Path

from convoy.data.raw import MAX_LABELS
from convoy.kinds.registry import module
from convoy.sources import tables
from convoy.sources.items import SPLIT_NAMES, SourceRefused

LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "y", "labels", "classname")
SPLIT_COLUMN_NAMES = ("split", "subset", "partition", "set", "fold")
SPLIT_WORDS = {"split", "splits", "subset", "partition", "fold", "folds"}  # also as a part of a name: data_split
MOST_SPACES = 6  # in the name of a column
Rows = Sequence[Mapping[str, object]]


class Chooser:
    """Chooses among the columns of one table by some of its rows.

    Afterwards `reasons` says why content and label were chosen ("" where params.yaml names them), and `doubts` which
    other columns are possible. `options` and `kept` are the columns that options and params.yaml name, by their role.
    """

    def __init__(
        self, kind: str, table: Path, encoding: str, rows: Rows, options: Mapping[str, str], kept: Mapping[str, str]
    ) -> None:
        self.reasons: dict[str, str] = {}
        self.doubts: list[str] = []
        self._kind, self._table, self._encoding, self._rows, self._options = kind, table, encoding, rows, options
        self._names = list(dict.fromkeys(str(name) for row in rows for name in row))
        for key, name in options.items():
            if name not in self._names:
                raise SourceRefused(f"{table} has no column {name!r} (--{key}), it has {', '.join(self._names)}")
        self._free = [name for name in self._names if name not in options.values()]
        self._kept = {key: name for key, name in kept.items() if name in self._free}
        # Never the label, unless an option says so: they separate train from test.
        self._splits = [name for name in self._names if _has_split_name(name) or self._holds_splits(name)]

    def choose(self) -> dict[str, str | None]:
        """The columns by their role. Raises SourceRefused where one is missing, or none looks like what is needed."""
        split = self._choose_split()
        label = self._preferred("label", self._splits) or self._choose_label()
        content = self._preferred("content", [label]) or self._choose_content([label, split])
        if label == content:
            raise SourceRefused(f"{self._table}: --label and --content name the same column {label!r}")
        self.doubts += [
            f"column {name!r} looks like a split and is not used; --split names one of train, test and so on"
            for name in self._splits
            if name not in (content, label, split)
        ]
        if long := [name for name in self._names if name.count(" ") > MOST_SPACES]:
            self.doubts.append(
                f"the first line is to name the columns, and {long[0][:60]!r} looks like an item of its own"
            )
        return {"content": content, "label": label, "split": split}

    def _preferred(self, key: str, excluded: Sequence[str]) -> str | None:
        """The column that an option names, else the one of params.yaml unless it is excluded."""
        kept = self._kept.get(key)
        if key in self._options:
            self.reasons[key] = f"as --{key} says"
        elif kept and kept not in excluded:
            self.reasons[key] = ""
        else:
            self.reasons[key], kept = "as found in the table", None
        return self._options.get(key, kept)

    def _choose_split(self) -> str | None:
        """The column of the split: its name and all its values are those of splits; a `set` may hold other things."""
        option = self._options.get("split")
        if option and not self._holds_splits(option):
            values = list(dict.fromkeys(str(row.get(option)) for row in self._rows))[:5]
            raise SourceRefused(
                f"{self._table}: --split {option} has {', '.join(values)}; known are {', '.join(SPLIT_NAMES)}; "
                "without --split Convoy divides the data itself"
            )
        kept = [self._kept["split"]] if "split" in self._kept else []
        likely = [*kept, *_called(SPLIT_COLUMN_NAMES, self._free)]
        return option or next(filter(self._holds_splits, likely), None)

    def _holds_splits(self, name: str) -> bool:
        return all(_is_split(row[name]) for row in self._rows if name in row)

    def _choose_label(self) -> str:
        possible = [name for name in self._free if name not in self._splits]
        if named := _called(LABEL_NAMES, possible):
            self._add_doubt("label", named[1:])
            return named[0]
        counts, total = _count_values(self._table, self._encoding)
        counts = {name: counts.get(name, 0) for name in possible if name != self._kept.get("content")}
        candidates = [name for name, n in counts.items() if 1 < n <= MAX_LABELS]
        if not candidates:
            left = f" ({', '.join(sorted(self._splits))} looks like a split)" if self._splits else ""
            raise SourceRefused(
                f"{self._table}: no column looks like labels among {', '.join(self._names)}{left}; "
                "name the one that holds them with --label"
            )
        best = min(candidates, key=lambda name: counts[name])
        # Columns whose values hardly repeat, as ids and texts, are no labels either.
        self._add_doubt("label", [name for name in candidates if name != best and 2 * counts[name] <= total])
        return best

    def _choose_content(self, taken: Sequence[str | None]) -> str:
        free = [name for name in self._free if name not in taken]
        if not free:
            raise SourceRefused(
                f"{self._table} has the column {taken[0]!r} alone; one of the {self._kind} itself is expected beside it"
            )
        longest = max(free, key=lambda name: sum(len(str(row.get(name))) for row in self._rows))
        named = _called(module(self._kind, "survey").COLUMN_NAMES, free)
        if holds_files(self._kind):
            named += [name for name in files_in(self._rows, self._table.parent) if name in free]
        elif named and longest != named[0]:
            self._add_doubt("content", [longest])
        return [*named, longest][0]

    def _add_doubt(self, key: str, others: Sequence[str]) -> None:
        if others:
            self.doubts.append(f"the {key} could also be {' or '.join(map(repr, others))}: --{key} names it")


def holds_files(kind: str) -> bool:
    """Whether a cell of a table of this kind is the path of a file."""
    return bool(module(kind, "items.raw").RAW is bytes)


def files_in(rows: Rows, folder: Path) -> list[str]:
    """The columns that name files relative to the table's folder."""
    return [name for name in rows[0] if any(isfile(folder / str(row.get(name))) for row in rows)]


def _called(likely: Iterable[str], names: Sequence[str]) -> list[str]:
    """The columns with a likely name, the likeliest first."""
    return [name for word in likely for name in names if name.lower() == word]


def _is_split(cell: object) -> bool:
    return str(cell).strip().lower() in SPLIT_NAMES


def _has_split_name(name: str) -> bool:
    words = name.lower().replace("-", "_").split("_")
    return name.lower() in SPLIT_COLUMN_NAMES or not SPLIT_WORDS.isdisjoint(words)


def _count_values(table: Path, encoding: str) -> tuple[dict[str, int], int]:
    """The number of distinct values by column, without split columns, and the number of rows.

    Counts to one more than the labels may be. Reads the whole table, which may be sorted by its label.
    """
    values: defaultdict[str, set[str]] = defaultdict(set)
    total = 0
    for _, row in tables.rows_of(table, encoding):
        total += 1
        for name, cell in row.items() if isinstance(row, dict) else ():
            if len(values[name]) <= MAX_LABELS:
                values[name].add(str(cell))
    return {name: len(distinct) for name, distinct in values.items() if not all(map(_is_split, distinct))}, total
