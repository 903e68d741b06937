"""A table with a label column (CSV, TSV, JSONL, Parquet) -> items: texts from a column, files from the paths in it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from convoy.kinds.registry import module
from convoy.sources.items import (
    SPLIT_NAMES,
    Item,
    ItemsAndRejections,
    Rejection,
    SourceParams,
    SourceRefused,
    label_name,
)
from convoy.sources.lines import Numbered, read_csv, read_jsonl, require_columns
from convoy.sources.trees import read_file

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PARQUET_BATCH = 1_000  # rows


def read(params: SourceParams, kind: str) -> ItemsAndRejections:
    """A row is an item; its name is `table.csv:12`, by line, in Parquet by row.

    Raises SourceRefused where there is no such table or column, or where it cannot be read to its end.
    """
    path = find(params, kind)
    holds_paths = module(kind, "items.raw").RAW is bytes
    wanted = [params.table.content, params.table.label]
    for number, row in rows_of(path, params.table.encoding, wanted, [params.table.split]):
        name = f"{path.name}:{number}"
        if isinstance(row, str):
            yield Rejection(name, "no_row", row)
        elif missing := [column for column in wanted if column not in row]:  # of JSON
            yield Rejection(name, "no_row", f"no {missing[0]!r}")
        else:
            yield _to_item(name, row, path.parent, params, holds_paths)


def find(params: SourceParams, kind: str) -> Path:
    """The table's path. A table that names files is in a folder with them: DVC watches that folder.

    Raises SourceRefused where there is no table, or more than one to choose from.
    """
    path = params.path
    if path.is_file() and module(kind, "items.raw").RAW is bytes:
        raise SourceRefused(f"{path}: name the folder that holds it and the images, so that a changed image is seen")
    if path.is_dir():
        tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        chosen = [params.table.file] if params.table.file else tables
        if len(chosen) != 1:
            listed = ", ".join(tables) or "none"
            raise SourceRefused(f"{path}: one table is expected, found: {listed}; name it as table.file in params.yaml")
        path = path / chosen[0]
    if not path.is_file():
        raise SourceRefused(f"{path} does not exist; correct the path in params.yaml")
    return path


def rows_of(path: Path, encoding: str, wanted: Sequence[str] = (), also: Sequence[str] = ()) -> Iterator[Numbered]:
    """The rows of a table, each with its number and its cells, or with what is wrong with it.

    Without `wanted` all columns are read; else only those and, where they exist, those of `also`. Raises SourceRefused
    where it is no table, cannot be read to its end, or lacks a wanted column; columns of JSON are not checked.
    """
    try:
        match path.suffix.lower():
            case ".csv":
                yield from read_csv(path, ",", encoding, wanted, also)
            case ".tsv":
                yield from read_csv(path, "\t", encoding, wanted, also)
            case ".jsonl":
                yield from read_jsonl(path, encoding)
            case ".parquet":
                yield from _read_parquet(path, wanted, also)
            case _:
                raise SourceRefused(f"{path} is no table; known are {', '.join(SUFFIXES)}")
    except UnicodeError as error:
        remedy = "state its encoding (table.encoding in params.yaml, or --encoding)"
        raise SourceRefused(f"{path} is not {encoding}: {error}; {remedy}") from None
    except LookupError:
        raise SourceRefused(f"{encoding!r} is no encoding that Python knows; utf-8 mostly is") from None


def _read_parquet(path: Path, wanted: Sequence[str], also: Sequence[str]) -> Iterator[Numbered]:
    """Read as a stream: it takes 6 MiB for a row group of 160 MiB, which by default is read at once."""
    number = 0
    try:
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            require_columns(path, file.schema_arrow.names, wanted)
            for batch in file.iter_batches(PARQUET_BATCH, columns=[*wanted, *also] if wanted else None):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise SourceRefused(f"{path} cannot be read after row {number}: {error}") from None


def _to_item(
    name: str, row: dict[str, object], folder: Path, params: SourceParams, holds_paths: bool
) -> Item | Rejection:
    columns = params.table
    label = label_name(row[columns.label])
    if not label:
        return Rejection(name, "no_label", f"no label in the column {columns.label!r}")
    if params.labels is not None and label not in params.labels:
        return Rejection(name, "label_not_wanted", f"the label {label[:80]!r} is not in params.yaml", ignored=True)
    split = ""
    if params.given_splits and columns.split in row:
        split_name = str(row[columns.split]).strip()[:80]
        if split_name.lower() not in SPLIT_NAMES:
            return Rejection(name, "unknown_split", f"{split_name!r} is no split; known are {', '.join(SPLIT_NAMES)}")
        split = SPLIT_NAMES[split_name.lower()]
    content = row[columns.content]
    if not isinstance(content, str):
        return Rejection(name, "no_content", f"no text in the column {columns.content!r}")
    return _read_file(name, label, split, folder, content) if holds_paths else Item(name, label, split, content)


def _read_file(name: str, label: str, split: str, folder: Path, relative: str) -> Item | Rejection:
    try:
        path = (folder / relative.strip()).resolve()
        if not relative.strip() or not path.is_relative_to(folder.resolve()):
            return Rejection(name, "unreadable", f"{relative[:80]!r} is not in the table's folder")
        if path.exists() and not path.is_file():  # to read a pipe would wait for ever
            return Rejection(name, "unreadable", f"{relative[:80]!r} is no regular file")
        return Item(name, label, split, read_file(path))
    except RuntimeError:  # of Python 3.11 and 3.12
        return Rejection(name, "unreadable", f"{relative[:80]!r} is a loop of links")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return Rejection(name, "unreadable", f"{relative[:80]!r}: {getattr(error, 'strerror', None) or error}")
