"""The inputs to score from a table or a folder, one after the other and in the same order each time."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convoy.core.rejection import InputRejected
from convoy.kinds.registry import module
from convoy.sources import folders, trees
from convoy.sources.lines import Row
from convoy.sources.tables import rows_of


class ScoringRefused(RuntimeError):
    """Input, output, options or the deployed model cannot be used; existing files stay unchanged."""


@dataclass(frozen=True)
class Item:
    """One row: its name and its content, which is a text, a file, or why it has neither."""

    name: str
    content: str | Path | InputRejected


@dataclass(frozen=True)
class Inputs:
    """The input, read again at each iteration; memory holds a few rows, or the names of one folder."""

    place: Path
    task: str
    kind: str
    column: str
    encoding: str

    @property
    def holds_files(self) -> bool:
        """Whether a cell of a table is the path of a file."""
        return bool(module(self.kind, "items.raw").RAW is bytes)

    def __iter__(self) -> Iterator[Item]:
        """Raises SourceRefused where a table cannot be read at all; a fault of one row is in that row."""
        if self.place.is_dir():
            yield from (Item(trees.printable(file.relative_to(self.place)), file) for file in self._files())
            return
        for number, (_, row) in enumerate(rows_of(self.place, self.encoding, [self.column])):
            cell = _read_cell(row, self.column)
            if isinstance(cell, InputRejected) or not self.holds_files:
                yield Item(f"{self.place.name}#{number}", cell)
            else:
                # Any path: the user who runs this may read each file that the table names.
                yield Item(trees.printable(cell), self.place.parent / cell)

    def count(self) -> int:
        """The number of rows. A table that cannot be read to its end is refused here, before anything is scored."""
        total = missing = 0
        for item in self:
            total += 1
            missing += isinstance(item.content, InputRejected) and item.content.code == "missing_value"
        if total and missing == total:
            raise ScoringRefused(
                f"{self.place}: none of the {total} rows has a `{self.column}`; --column names another"
            )
        return total

    def fingerprint(self) -> dict[str, str]:
        """What changes with the input: size and time of a table, and a sha256 over those of all files.

        A table of images has both: its files may change while it does not.
        """
        state = {"path": str(self.place.resolve())}
        if not self.place.is_dir():
            state["table"] = _state(self.place)
        if self.place.is_dir() or self.holds_files:
            digest = hashlib.sha256()
            for item in self:
                if isinstance(item.content, Path):
                    digest.update(os.fsencode(item.content) + f"\0{_state(item.content)}\0".encode())
            state["files"] = digest.hexdigest()
        return state

    def _files(self) -> Iterator[Path]:
        """All files below the folder with a suffix of this kind; links to folders are not followed."""
        suffixes = module(self.kind, "items.raw").SUFFIXES
        for path, is_folder in trees.paths_below(self.place):
            if not is_folder and (not suffixes or path.name.lower().endswith(suffixes)):
                yield path


def read_file(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises InputRejected where it is missing, no file, unreadable or too large."""
    try:
        if not path.is_file():
            raise InputRejected("unreadable_file", "there is no file of this name")
        return trees.read_file(path, max_bytes)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise InputRejected("file_too_large", f"the file is {error.strerror}") from None
        raise InputRejected("unreadable_file", f"the file cannot be read: {error.strerror}") from None


def decode(content: bytes, encoding: str) -> str:
    """The text of a file. Raises InputRejected where it is not in this encoding."""
    try:
        return folders.decode(content, encoding)
    except UnicodeDecodeError as error:
        raise InputRejected("invalid_text", folders.explain(error)) from None


def _state(file: Path) -> str:
    """Size and time of a regular file; empty for anything else, which is no input and may change at any time."""
    try:
        status = file.stat()
    except (OSError, ValueError):  # no such file, or an impossible name
        return ""
    return f"{status.st_size} bytes of {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else ""


def _read_cell(row: Row, column: str) -> str | InputRejected:
    """The text or path in a row, or why there is none."""
    if isinstance(row, str):
        return InputRejected("malformed_row", row)
    value = row.get(column)
    if value is None:
        return InputRejected("missing_value", f"the row has no `{column}`")
    if not isinstance(value, str):
        return InputRejected("malformed_row", f"`{column}` is a {type(value).__name__}, a string is expected")
    return value
