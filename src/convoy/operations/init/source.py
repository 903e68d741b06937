"""Detects what kind of data a path holds and in which form, and the params that read it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from convoy.core import paths
from convoy.kinds.registry import KINDS
from convoy.operations.init.columns import Chooser, holds_files
from convoy.operations.init.recognition import kind_of_files, kind_of_named_files, kind_of_rows
from convoy.sources import registry, tables
from convoy.sources.archives import is_archive
from convoy.sources.items import ItemsAndRejections, SourceParams, SourceRefused, TableParams

SAMPLE_ROWS = 200
DELIMITERS = {".csv": ",", ".tsv": "\t"}
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
    columns: Mapping[str, str] = field(default_factory=dict)  # of a table, by their role

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
    doubts: tuple[str, ...] = ()  # what else could be meant, in words

    @property
    def source(self) -> str:
        """The source that reads it."""
        return self.params.source

    def read(self) -> ItemsAndRejections:
        """The items, as the fetch stage will read them."""
        return registry.find(self.source, self.kind).read(self.params, self.kind)


def detect(stated: Stated, kept: Mapping[str, str] | None = None) -> Detected:
    """What the stated path is, by its name and content.

    `kept` names the columns of a table, by their role, that are used where it has them, and no option names others.
    Raises SourceRefused, which says what was expected.
    """
    path = stated.path
    if not path.exists():
        raise SourceRefused(f"{path} does not exist; name a folder, an archive of one, a table, or arrays")
    columns = TableParams(file=None, content="text", label="label", split="split", encoding=stated.encoding)
    params = SourceParams(source="folder", path=path, given_splits=True, labels=stated.labels, table=columns)
    is_arrays = path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*-images*ubyte*")))
    of_arrays = [kind for kind in stated.kinds if registry.is_for("arrays", kind)]
    if is_arrays and len(of_arrays) == 1:
        detected = Detected(of_arrays[0], params.model_copy(update={"source": "arrays"}))
    else:
        table, doubts = _find_table(stated)
        if table:
            return _detect_table(table, stated, params, kept or {})
        detected = Detected(stated.kind or kind_of_files(path), params, doubts=doubts)
    for name in stated.columns:
        raise SourceRefused(f"--{name} names a column of a table; {path} is {READ[detected.source]}; leave it out")
    return detected


def describe(stated: Stated, detected: Detected) -> Iterator[str]:
    """What was detected, and why, in plain words."""
    found = "as --kind says" if stated.kind else "as found; --kind states another"
    yield f"{stated.path}: {READ[detected.source]}, of kind {detected.kind} ({found})"
    if detected.source == "table":
        table = detected.params.table
        reasons = {key: reason or f"as {paths.PARAMS} says" for key, reason in detected.reasons.items()}
        yield (
            f"column {table.content!r} is the {detected.kind} ({reasons['content']}), column {table.label!r} the "
            f"label ({reasons['label']}); --content and --label name others"
        )
    yield from detected.doubts


def _detect_table(table: Path, stated: Stated, params: SourceParams, kept: Mapping[str, str]) -> Detected:
    rows = _sample_rows(table, stated.encoding)
    kind = stated.kind or kind_of_rows(table, rows)
    chooser = Chooser(kind, table, stated.encoding, rows, stated.columns, kept)
    chosen = chooser.choose()
    update = {key: name for key, name in chosen.items() if name}
    path = table
    if holds_files(kind):
        path = table.parent
        update |= {"file": table.name} if len(_tables_in(path)) > 1 else {}
    columns = params.table.model_copy(update=update)
    # Where the split of no column is meant, the stage would use one by its name.
    is_given = chosen["split"] is not None or not any(columns.split in row for row in rows)
    params = params.model_copy(update={"source": "table", "table": columns, "path": path, "given_splits": is_given})
    return Detected(kind, params, chooser.reasons, tuple(chooser.doubts))


def _find_table(stated: Stated) -> tuple[Path | None, tuple[str, ...]]:
    """The table that is meant; None for a folder or an archive of files, and why its tables are not meant.

    Raises SourceRefused where it is neither.
    """
    path = stated.path
    if is_archive(path):
        return None, ()
    if path.is_file():
        if path.suffix.lower() not in tables.SUFFIXES:
            raise SourceRefused(f"{path} is neither a table ({', '.join(tables.SUFFIXES)}) nor an archive")
        return path, ()
    beside_folders = any(file.is_dir() for file in path.iterdir())
    found = {file: _why_unused(file, stated) if beside_folders else "" for file in _tables_in(path)}
    used = [file for file, why in found.items() if not why]
    if len(used) > 1:
        names = ", ".join(file.name for file in used)
        raise SourceRefused(f"{path} holds several tables: {names}; name one of them with --from")
    return next(iter(used), None), tuple(filter(None, found.values()))


def _tables_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in tables.SUFFIXES)


def _why_unused(table: Path, stated: Stated) -> str:
    """Why a table beside folders, which may be about something else, is not the source; "" where it names files."""
    try:
        rows = _sample_rows(table, stated.encoding)
    except SourceRefused as refused:
        return f"{table.name} is not used: {refused}"
    if kind_of_named_files(rows, table.parent, stated.kinds):
        return ""
    cells = ", ".join(repr(str(cell)[:80]) for cell in rows[0].values())
    return f"{table.name} is not used: no cell is the path of a file, relative to it (first row: {cells})"


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
            f"{table}: its columns are separated by {found!r}, those of {table.suffix} by {expected!r}; convert "
            f"it, for example: python -c \"import pandas; pandas.read_csv('{table}', sep={found!r}).to_json("
            f"'{table.with_suffix('.jsonl')}', orient='records', lines=True)\""
        )
