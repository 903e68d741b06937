"""A path that a user names -> the kind of source it is, and the params that read it."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from convoy.core.paths import Task
from convoy.operations.init.columns import Chooser, Columns, files_in
from convoy.sources import arrays, tables
from convoy.sources.archives import is_archive
from convoy.sources.items import Found, SourceParams, SourceRefused, TableParams

Kind = Literal["folder", "table", "arrays"]
READ: dict[Kind, str] = {
    "folder": "a folder per label",
    "table": "a table with a column of labels",
    "arrays": "arrays of pixels and labels",
}
SAMPLE_ROWS = 200
NOBODY = Columns()


@dataclass(frozen=True)
class Detected:
    """What a path is, and the params that read it."""

    kind: Kind
    params: SourceParams
    reasons: dict[str, str] = field(default_factory=dict)  # of a table, why its columns content and label are those
    doubts: tuple[str, ...] = ()  # what else these could be, in words

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


def detect(
    task: Task,
    path: Path,
    encoding: str,
    labels: tuple[str, ...] | None = None,
    options: Columns = NOBODY,
    kept: Columns = NOBODY,
) -> Detected:
    """What `path` is, told from its name and from what lies in it.

    Of a table, `options` name columns, and `kept` those that are taken where the table has them.
    Raises SourceRefused, which says what was expected.
    """
    detected = _detect(task, path, encoding, labels, options, kept)
    if options.named() and detected.kind != "table":
        name = next(iter(options.named()))
        raise SourceRefused(f"--{name} names a column of a table; {path} is {READ[detected.kind]}; leave it out")
    return detected


def _detect(
    task: Task, path: Path, encoding: str, labels: tuple[str, ...] | None, options: Columns, kept: Columns
) -> Detected:
    if not path.exists():
        raise SourceRefused(f"{path} does not exist; name a folder, an archive of one, a table, or arrays")
    plain = TableParams(file=None, content="text", label="label", split="split", encoding=encoding)
    base = SourceParams(path=path, given_splits=True, labels=labels, table=plain)
    if task == "image" and (path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*-images*ubyte*")))):
        return Detected("arrays", base)
    if is_archive(path):
        return Detected("folder", base)
    if path.is_file():
        return _of_table(task, path, base, options, kept)
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES)
    if any(file.is_dir() for file in path.iterdir()):
        # Beside folders a table may be about something else; the one of images names them.
        found = [file for file in found if task == "image" and _names_files(file, encoding)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise SourceRefused(f"{path} holds several tables: {names}; name one of them with --from")
    return _of_table(task, found[0], base, options, kept) if found else Detected("folder", base)


def _names_files(table: Path, encoding: str) -> bool:
    try:
        return bool(files_in(_sample(table, encoding), table.parent))
    except SourceRefused:
        return False


def _of_table(task: Task, table: Path, base: SourceParams, options: Columns, kept: Columns) -> Detected:
    """Its columns. The path is the table itself, or for images the folder that it is in."""
    if table.suffix.lower() not in tables.SUFFIXES:
        raise SourceRefused(f"{table} is neither a table ({', '.join(tables.SUFFIXES)}) nor an archive")
    rows = _sample(table, base.table.encoding)
    choice = Chooser(task, table, base.table.encoding, rows, options, kept).choose()
    update = {"content": choice.content, "label": choice.label, "split": choice.split or "split"}
    columns = base.table.model_copy(update=update)
    if choice.split is None and any(columns.split in row for row in rows):  # which the stage would take by its name
        base = base.model_copy(update={"given_splits": False})
    path = table
    if task == "image":
        path = table.parent
        others = [file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES and file != table]
        columns = columns.model_copy(update={"file": table.name if others else None})
    params = base.model_copy(update={"table": columns, "path": path})
    return Detected("table", params, choice.reasons, tuple(choice.doubts))


def _sample(table: Path, encoding: str) -> list[dict[str, object]]:
    rows = [row for _, row in islice(tables.rows_of(table, encoding), SAMPLE_ROWS) if isinstance(row, dict)]
    if not rows:
        raise SourceRefused(
            f"{table} has no usable row among its first {SAMPLE_ROWS}; is it {encoding}? --encoding states another"
        )
    return rows
