"""A table or a folder -> the inputs to score, one after the other and in the same order each time."""

import codecs
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from convoy.layout import Task
from convoy.preprocessing.rejection import InputRejected
from convoy.scoring.refusal import ScoringRefused

MAX_CELL_CHARACTERS = 16_000_000  # of a CSV; what is longer is no text but a quote that is never closed
BATCH_ROWS = 1024  # of a Parquet file, read at once

# A text or a path as the table has it, or why there is none.
Cell = str | InputRejected
Reader = Callable[[Path, str, str], Iterator[Cell]]


@dataclass(frozen=True)
class Item:
    """One row: its name, and what it holds, which is a text, the file of a text or an image, or why it has neither."""

    name: str
    content: str | Path | InputRejected


@dataclass(frozen=True)
class Inputs:
    """What is to be scored, read anew each time it is iterated; memory holds a few rows, or the names of one folder."""

    place: Path
    task: Task
    column: str
    encoding: str

    def __iter__(self) -> Iterator[Item]:
        """Raises ScoringRefused where a table cannot be read at all; what is wrong with one row is in that row."""
        if self.place.is_dir():
            yield from (Item(_printable(str(file.relative_to(self.place))), file) for file in self._files())
            return
        for row, cell in enumerate(_reader_of(self.place)(self.place, self.column, self.encoding)):
            if isinstance(cell, InputRejected) or self.task == "text":
                yield Item(f"{self.place.name}#{row}", cell)
            else:
                # May lead anywhere: who runs this may read whatever the table names, and could name it himself.
                yield Item(_printable(cell), self.place.parent / cell)

    def count(self) -> int:
        """The number of rows. A table that cannot be read to its end is refused here, before anything is scored."""
        total, found = 0, False
        for item in self:
            total += 1
            found = found or not (isinstance(item.content, InputRejected) and item.content.code == "missing_value")
        if total and not found:
            raise ScoringRefused(
                f"{self.place}: none of the {total} rows has a `{self.column}`; --column names another"
            )
        return total

    def fingerprint(self) -> dict[str, Any]:
        """What changes when the input does: path, size and time of a table, or a sha256 over those of all files."""
        if not self.place.is_dir():
            about = self.place.stat()
            return {"path": str(self.place.resolve()), "size": about.st_size, "mtime_ns": about.st_mtime_ns}
        digest = hashlib.sha256()
        for file in self._files():
            about = file.lstat()
            digest.update(os.fsencode(file) + f"\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
        return {"path": str(self.place.resolve()), "files": digest.hexdigest()}

    def _files(self) -> Iterator[Path]:
        """All files below the folder, of texts those that end in .txt; links to folders are not followed."""
        for folder, below, names in os.walk(self.place, onerror=_raise):
            below.sort()
            yield from (
                Path(folder, name) for name in sorted(names) if self.task == "image" or name.lower().endswith(".txt")
            )


def read_file(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises InputRejected where it is missing, no file, unreadable or too large."""
    try:
        if not path.is_file():
            raise InputRejected("unreadable_file", "there is no file of this name")
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise InputRejected("unreadable_file", f"the file cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise InputRejected("file_too_large", f"the file has more than {max_bytes} bytes")
    return content


def decode(content: bytes, encoding: str) -> str:
    """The text of a file. Raises InputRejected where it is not in this encoding."""
    try:
        return content.decode(codec(encoding))
    except UnicodeError:
        raise InputRejected("invalid_text", f"the file is not {encoding}") from None


def codec(encoding: str) -> str:
    """The name of Python's codec; of UTF-8 the one that takes off the mark which Excel puts before a CSV."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ScoringRefused(f"--encoding {encoding} is not known; for example utf-8, latin-1 and utf-16 are") from None
    return "utf-8-sig" if name == "utf-8" else name


@contextmanager
def _opened(path: Path, encoding: str, newline: str | None = None) -> Iterator[TextIO]:
    """A byte that is not UTF-8 becomes a lone surrogate: in a text an error of this row, in a path that byte."""
    try:
        with path.open(encoding=codec(encoding), errors="surrogateescape", newline=newline) as stream:
            yield stream
    except UnicodeError as error:  # UTF-16 that is none
        raise ScoringRefused(f"{path} is not {encoding} ({error}); --encoding names another") from None


def _separated(path: Path, column: str, encoding: str, delimiter: str) -> Iterator[Cell]:
    """Cells of a CSV or TSV with a header; blank lines are no rows, as pandas has it."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with _opened(path, encoding, newline="") as stream:
        lines = csv.reader(stream, delimiter=delimiter)
        try:
            header = next(lines, [])
            index = _index_of(column, header, path)
            for cells in filter(None, lines):
                if len(cells) == len(header):
                    yield cells[index]
                else:
                    yield InputRejected("malformed_row", f"the row has {len(cells)} cells, the header {len(header)}")
        except csv.Error as error:
            raise ScoringRefused(f"{path}, line {lines.line_num}: {error}; is a quote open?") from None


def _json_lines(path: Path, column: str, encoding: str) -> Iterator[Cell]:
    """Values of one key of a JSON object per line; blank lines are no rows."""
    with _opened(path, encoding) as stream:
        for line in stream:
            if line.strip():
                yield _value_of(line, column)


def _value_of(line: str, column: str) -> Cell:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # also integers of thousands of digits
        return InputRejected("malformed_row", "the line is not JSON")
    if not isinstance(found, dict):
        return InputRejected("malformed_row", "the line is not a JSON object")
    return _checked(found.get(column), column)


def _parquet(path: Path, column: str, _: str) -> Iterator[Cell]:
    """Cells of a column of strings, as a stream: 6 MiB for a row group of 160 MiB, which by default is read at once."""
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            _index_of(column, file.schema_arrow.names, path)
            for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
                yield from (_checked(value, column) for value in batch.column(0).to_pylist())
    except pa.ArrowException as error:
        raise ScoringRefused(f"{path} is not a whole Parquet file: {error}") from None


def _checked(value: object, column: str) -> Cell:
    if value is None:
        return InputRejected("missing_value", f"the row has no `{column}`")
    if not isinstance(value, str):
        return InputRejected("malformed_row", f"`{column}` is a {type(value).__name__}, a string is expected")
    return value


READERS: dict[str, Reader] = {
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _reader_of(path: Path) -> Reader:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ScoringRefused(f"{path} has the suffix {path.suffix!r}; a folder or one of {', '.join(READERS)} is read")
    return reader


def _index_of(column: str, names: list[str], path: Path) -> int:
    if column not in names:
        raise ScoringRefused(f"{path} has no column `{column}` but {', '.join(names) or 'none'}; --column names one")
    return names.index(column)


def _printable(name: str) -> str:
    """A file name may hold bytes that are not UTF-8, which no Parquet file takes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _raise(error: OSError) -> None:
    raise error  # os.walk would go on without that folder
