"""Detects what kind of data a path holds and in which form, and the params that read it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from convoy.kinds.registry import KINDS
from convoy.operations.init.columns import Chooser, Columns, holds_files
from convoy.operations.init.recognition import kind_of_files, kind_of_named_files, kind_of_rows
from convoy.sources import registry, tables
from convoy.sources.archives import is_archive
from convoy.sources.items import ItemsAndRejections, SourceParams, SourceRefused, TableParams

SAMPLE_ROWS = 200
DELIMITERS = {".csv": ",", ".tsv": "\t"}
NO_COLUMNS = Columns()
READ = {
    "folder": "a folder per label",
    "table": "a table with a column of labels",
    "arrays": "arrays of pixels and labels",
}


@dataclass(frozen=True)
class Stated:
    """What the options say about a source; a kind of None is found."""

    path: Path
    kind: str | None = None
    encoding: str = "utf-8"
    labels: tuple[str, ...] | None = None
    columns: Columns = NO_COLUMNS

    @property
    def kinds(self) -> Sequence[str]:
        """Those that are possible."""
        return [self.kind] if self.kind else KINDS


@dataclass(frozen=True)
class Detected:
    """What a path is, and the params that read it."""

    kind: str
    params: SourceParams
    reasons: dict[str, str] = field(default_factory=dict)  # of a table, why its columns content and label are those
    doubts: tuple[str, ...] = ()  # which other columns these could be, in words

    @property
    def source(self) -> str:
        """The source that reads it."""
        return self.params.source

    def read(self) -> ItemsAndRejections:
        """The items, as the fetch stage will read them."""
        return registry.find(self.source, self.kind).read(self.params, self.kind)


def detect(stated: Stated, kept: Columns = NO_COLUMNS) -> Detected:
    """What the stated path is, by its name and content.

    `kept` names the columns of a table that are used where it has them, and no option names others.
    Raises SourceRefused, which says what was expected.
    """
    detected = _detect(stated, kept)
    if stated.columns.named() and detected.source != "table":
        name = next(iter(stated.columns.named()))
        raise SourceRefused(
            f"--{name} names a column of a table; {stated.path} is {READ[detected.source]}; leave it out"
        )
    return detected


def _detect(stated: Stated, kept: Columns) -> Detected:
    path = stated.path
    if not path.exists():
        raise SourceRefused(f"{path} does not exist; name a folder, an archive of one, a table, or arrays")
    columns = TableParams(file=None, content="text", label="label", split="split", encoding=stated.encoding)
    params = SourceParams(source="folder", path=path, given_splits=True, labels=stated.labels, table=columns)
    is_arrays = path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*-images*ubyte*")))
    of_arrays = [kind for kind in stated.kinds if registry.is_for("arrays", kind)]
    if is_arrays and len(of_arrays) == 1:
        return Detected(of_arrays[0], params.model_copy(update={"source": "arrays"}))
    table = _find_table(stated)
    if table is None:
        return Detected(stated.kind or kind_of_files(path), params)
    rows = _sample_rows(table, stated.encoding)
    kind = stated.kind or kind_of_rows(table, rows)
    choice = Chooser(kind, table, stated.encoding, rows, stated.columns, kept).choose()
    update = {"content": choice.content, "label": choice.label, "split": choice.split or "split"}
    columns = columns.model_copy(update=update)
    if choice.split is None and any(columns.split in row for row in rows):  # the stage would use it by its name
        params = params.model_copy(update={"given_splits": False})
    if holds_files(kind):
        path = table.parent
        columns = columns.model_copy(update={"file": table.name if len(_tables_in(path)) > 1 else None})
    else:
        path = table
    params = params.model_copy(update={"source": "table", "table": columns, "path": path})
    return Detected(kind, params, choice.reasons, tuple(choice.doubts))


def _find_table(stated: Stated) -> Path | None:
    """The table that is meant; None for a folder or an archive of files. Raises SourceRefused where it is neither.

    Beside folders a table may be about something else, unless it names files of a kind.
    """
    path = stated.path
    if is_archive(path):
        return None
    if path.is_file():
        if path.suffix.lower() not in tables.SUFFIXES:
            raise SourceRefused(f"{path} is neither a table ({', '.join(tables.SUFFIXES)}) nor an archive")
        return path
    found = _tables_in(path)
    if any(file.is_dir() for file in path.iterdir()):
        found = [file for file in found if _names_files(file, stated)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise SourceRefused(f"{path} holds several tables: {names}; name one of them with --from")
    return found[0] if found else None


def _tables_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in tables.SUFFIXES)


def _names_files(table: Path, stated: Stated) -> bool:
    try:
        rows = _sample_rows(table, stated.encoding)
    except SourceRefused:
        return False
    return kind_of_named_files(rows, table.parent, stated.kinds) is not None


def _sample_rows(table: Path, encoding: str) -> list[dict[str, object]]:
    rows = [row for _, row in islice(tables.rows_of(table, encoding), SAMPLE_ROWS) if isinstance(row, dict)]
    _require_delimiter(table, encoding)
    if not rows:
        raise SourceRefused(
            f"{table} has no usable row among its first {SAMPLE_ROWS}; is it {encoding}? --encoding states another"
        )
    return rows


def _require_delimiter(table: Path, encoding: str) -> None:
    """Raise SourceRefused where the first line has only another delimiter than the table's suffix says."""
    expected = DELIMITERS.get(table.suffix.lower(), "")
    with table.open(encoding=encoding, errors="replace") as file:
        header = file.readline(10_000) if expected else ""
    found = next((other for other in ";\t|," if other in header), expected)
    if expected not in header and found != expected:
        raise SourceRefused(
            f"{table}: its columns are divided by {found!r}, those of {table.suffix} are by {expected!r}; write it "
            f"again, for example: python -c \"import pandas; pandas.read_csv('{table.name}', sep={found!r}).to_json("
            "'again.jsonl', orient='records', lines=True)\""
        )
