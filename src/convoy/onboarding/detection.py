"""A path that a user names -> the kind of source it is, and where a table has its text, its image and its label."""

from dataclasses import dataclass
from itertools import islice
from os.path import isfile  # Path.is_file raises for a cell that is too long for a name
from pathlib import Path
from typing import Literal

from convoy.layout import Task
from convoy.raw import MAX_LABELS
from convoy.sources import arrays, tables
from convoy.sources.archives import is_archive
from convoy.sources.items import SPLIT_NAMES, Found, SourceParams, SourceRefused, TableParams

Kind = Literal["folder", "table", "arrays"]
READ: dict[Kind, str] = {
    "folder": "a folder per label",
    "table": "a table with a column of labels",
    "arrays": "arrays of pixels and labels",
}
SAMPLE_ROWS = 200
_NAMES = {
    "text": ("text", "review", "sentence", "content", "message", "body", "comment", "title", "document"),
    "image": ("path", "image", "file", "filename", "file_name", "image_path", "filepath"),
    "label": ("label", "class", "category", "target", "sentiment", "y", "labels", "classname"),
    "split": ("split", "subset", "partition", "set", "fold"),
}


@dataclass(frozen=True)
class Detected:
    """What a path is, and the params that read it."""

    kind: Kind
    params: SourceParams

    def read(self, task: Task) -> Found:
        """The items, as the fetch stage will read them."""
        from convoy.sources import folders

        match self.kind:
            case "folder":
                return folders.read(self.params, task)
            case "table":
                return tables.read(self.params, task)
            case "arrays":
                return arrays.read(self.params)


def detect(task: Task, path: Path, encoding: str, labels: tuple[str, ...] | None = None) -> Detected:
    """What `path` is, told from its name and from what lies in it; nothing is read to its end.

    Raises SourceRefused, which says what was expected.
    """
    if not path.exists():
        raise SourceRefused(f"{path} does not exist; name a folder, an archive of one, a table, or arrays")
    plain = TableParams(file=None, content="text", label="label", split="split", encoding=encoding)
    base = SourceParams(path=path, given_splits=True, labels=labels, table=plain)
    if task == "image" and (path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*-images*ubyte*")))):
        return Detected("arrays", base)
    if is_archive(path):
        return Detected("folder", base)
    if path.is_file():
        return Detected("table", _of_table(task, path, base))
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES)
    if any(file.is_dir() for file in path.iterdir()):
        # Beside folders a table may be about something else; the one of images names them.
        found = [file for file in found if task == "image" and _names_files(file, encoding)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise SourceRefused(f"{path} holds several tables: {names}; name one of them with --from")
    return Detected("table", _of_table(task, found[0], base)) if found else Detected("folder", base)


def _names_files(table: Path, encoding: str) -> bool:
    try:
        return _of_files(_sample(table, encoding), table.parent) is not None
    except SourceRefused:
        return False


def _of_table(task: Task, table: Path, base: SourceParams) -> SourceParams:
    """Its columns. The path is the table itself, or for images the folder that it is in."""
    if table.suffix.lower() not in tables.SUFFIXES:
        raise SourceRefused(f"{table} is neither a table ({', '.join(tables.SUFFIXES)}) nor an archive")
    rows = _sample(table, base.table.encoding)
    label = _column(rows, "label") or _fewest_values(table, base.table.encoding)
    content = _column(rows, task) or (_of_files(rows, table.parent) if task == "image" else None)
    content = content or _longest(rows, label)
    if content is None:
        raise SourceRefused(f"{table} has the column {label!r} alone; one of the {task} itself is expected beside it")
    split = _split_column(rows)
    columns = base.table.model_copy(update={"content": content, "label": label, "split": split or "split"})
    if split is None and any(columns.split in row for row in rows):  # which the stage would take by its name
        base = base.model_copy(update={"given_splits": False})
    if task == "text":
        return base.model_copy(update={"table": columns, "path": table})
    others = [file for file in table.parent.iterdir() if file.suffix.lower() in tables.SUFFIXES and file != table]
    named = columns.model_copy(update={"file": table.name if others else None})
    return base.model_copy(update={"table": named, "path": table.parent})


def _sample(table: Path, encoding: str) -> list[dict[str, object]]:
    rows = [row for _, row in islice(tables.rows_of(table, encoding), SAMPLE_ROWS) if isinstance(row, dict)]
    if not rows:
        raise SourceRefused(
            f"{table} has no usable row among its first {SAMPLE_ROWS}; is it {encoding}? --encoding states another"
        )
    return rows


def _of_files(rows: list[dict[str, object]], folder: Path) -> str | None:
    """The column that names files, from the table's folder."""
    named = (name for name in rows[0] if any(isfile(folder / str(row.get(name))) for row in rows))
    return next(named, None)


def _column(rows: list[dict[str, object]], role: str) -> str | None:
    by_name = {str(name).lower(): str(name) for name in rows[0]}
    return next((by_name[name] for name in _NAMES[role] if name in by_name), None)


def _split_column(rows: list[dict[str, object]]) -> str | None:
    """The column of a division: named as one, and so is all that is in it; a `set` may be one of other things."""
    by_name = {str(name).lower(): str(name) for name in rows[0]}
    for name in (by_name[name] for name in _NAMES["split"] if name in by_name):
        if all(str(row[name]).strip().lower() in SPLIT_NAMES for row in rows if name in row):
            return name
    return None


def _fewest_values(table: Path, encoding: str) -> str:
    """The column that repeats itself most, in the whole table, which may be sorted by it; one value says nothing."""
    values: dict[str, set[str]] = {}
    for _, row in tables.rows_of(table, encoding):
        for name, cell in row.items() if isinstance(row, dict) else ():
            seen = values.setdefault(str(name), set())
            if len(seen) <= MAX_LABELS:
                seen.add(str(cell))
    candidates = {name: len(seen) for name, seen in values.items() if 1 < len(seen) <= MAX_LABELS}
    if not candidates:
        raise SourceRefused(
            f"{table}: no column looks like labels among {', '.join(values)}; rename the one that holds them to label"
        )
    return min(candidates, key=lambda name: candidates[name])


def _longest(rows: list[dict[str, object]], label: str) -> str | None:
    lengths = {name: sum(len(str(row.get(name))) for row in rows) for name in rows[0] if name != label}
    return max(lengths, key=lambda name: lengths[name], default=None)
