"""Lines of a CSV, TSV or JSONL file of strangers -> rows, or the reason why a line is none, with its number."""

import codecs
import csv
import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from convoy.sources.items import SourceRefused

MAX_LINE_CHARACTERS = 1_000_000  # the longest review has 13,704
TOO_LONG = f"longer than {MAX_LINE_CHARACTERS} characters"
MAX_ROW_LINES = 1_000  # a quote that is never closed would take in the rest of the file
# A row of a table: its cells by column, or what is wrong with it.
Row = dict[str, object] | str
Numbered = tuple[int, Row]
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARKED = dict(zip(_MARKS, ("utf-8", "utf-32", "utf-32", "utf-16", "utf-16"), strict=True))


class _Lines:
    """Lines of text with their numbers, from 1; a CSV row that went wrong puts back all but its first one."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.number = 0  # of the line that was given last
        self.given: list[tuple[str, bool]] = []  # since the row began, and whether it was too long
        self._fresh = _bounded(stream)
        self._back: deque[tuple[str, bool]] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.given) >= MAX_ROW_LINES:
            raise csv.Error(f"a quote is not closed within {MAX_ROW_LINES} lines")
        self.given.append(self._back.popleft() if self._back else next(self._fresh))
        self.number += 1
        return self.given[-1][0]

    def begin_row(self) -> int:
        """The number of the line that comes next."""
        self.given.clear()
        return self.number + 1

    def are_too_long(self) -> bool:
        """Whether one of the row's lines was, so that its cells are not those of the file."""
        return any(is_too_long for _, is_too_long in self.given)

    def put_back(self) -> None:
        """Let the lines after the row's first one be read again."""
        again = self.given[1:]
        self._back.extendleft(reversed(again))
        self.number -= len(again)


def require_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise SourceRefused where a table lacks a column."""
    missing = [column for column in wanted if column not in names]
    if missing:
        raise SourceRefused(
            f"{path} has no column {missing[0]!r}, it has {', '.join(names) or 'none'}; "
            "name its columns in the subsection table of params.yaml, or for `score` by --column"
        )


def read_csv(
    path: Path, delimiter: str, encoding: str, wanted: Sequence[str] = (), also: Sequence[str] = ()
) -> Iterator[Numbered]:
    """The rows below the header, each with the number of its first line; columns as `tables.rows_of` takes them.

    Raises SourceRefused where there is no header, a wanted column is missing, or the encoding is not the stated one.
    """
    with _open(path, encoding) as stream:
        lines = _Lines(stream)
        csv.field_size_limit(MAX_ROW_LINES * MAX_LINE_CHARACTERS)
        header = _header(path, csv.reader(lines, delimiter=delimiter, strict=True), lines)
        require_columns(path, header, wanted)
        looked_at = [index for index, name in enumerate(header) if not wanted or name in (*wanted, *also)]
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            number = lines.begin_row()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = TOO_LONG if lines.given[0][1] else f"no row of a table: {error}"
                lines.put_back()
                reader = csv.reader(lines, delimiter=delimiter, strict=True)
                yield number, fault
                continue
            if lines.are_too_long():
                yield number, TOO_LONG
            elif cells:
                yield number, _row(header, cells, looked_at, encoding)


def read_jsonl(path: Path, encoding: str) -> Iterator[Numbered]:
    """One JSON object per line; empty lines are passed over."""
    with _open(path, encoding) as stream:
        for number, (line, is_too_long) in enumerate(_bounded(stream), start=1):
            if is_too_long:
                yield number, TOO_LONG
            elif line.strip():
                yield number, _parse(line, encoding)


def _parse(line: str, encoding: str) -> Row:
    fault = _fault_of([line], encoding)
    if fault:
        return fault
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {getattr(error, 'msg', None) or type(error).__name__}"
    return row if isinstance(row, dict) else "no JSON object"


def _header(path: Path, reader: Iterator[list[str]], lines: _Lines) -> list[str]:
    lines.begin_row()
    try:
        header = [name.strip() for name in next(reader)]
    except StopIteration:
        raise SourceRefused(f"{path} is empty; its first line must name the columns") from None
    except csv.Error as error:
        raise SourceRefused(f"{path}:1: the first line, which must name the columns, is no row: {error}") from None
    if lines.are_too_long():
        raise SourceRefused(f"{path}:1: the first line, which must name the columns, is {TOO_LONG}")
    doubled = {name for name in header if header.count(name) > 1 and name}
    if doubled:
        raise SourceRefused(f"{path}:1: the columns {', '.join(sorted(doubled))} are there twice; rename one of each")
    return header


def _row(header: list[str], cells: list[str], looked_at: list[int], encoding: str) -> Row:
    if len(cells) != len(header):
        return f"{len(cells)} cells, the first line names {len(header)} columns"
    kept = [cells[index] for index in looked_at]
    return _fault_of(kept, encoding) or dict(zip((header[index] for index in looked_at), kept, strict=True))


def _fault_of(cells: list[str], encoding: str) -> str:
    for cell in cells:
        if len(cell) > MAX_LINE_CHARACTERS:
            return TOO_LONG
        if "\0" in cell:
            return "a NUL character"
        if not cell.isascii():
            strange = next((character for character in cell if "\udc80" <= character <= "\udcff"), "")
            if strange:  # as surrogateescape marks a byte that could not be decoded
                return f"not {encoding}: byte 0x{ord(strange) - 0xDC00:02x}"
    return ""


def _bounded(stream: io.TextIOWrapper) -> Iterator[tuple[str, bool]]:
    """Lines, and whether one was too long: of such a one there is only a quote, where it opens or closes a cell."""
    while line := stream.readline(MAX_LINE_CHARACTERS + 2):
        quotes, is_too_long, more = line.count('"'), False, line
        while not more.endswith("\n") and (more := stream.readline(MAX_LINE_CHARACTERS)):
            quotes, is_too_long = quotes + more.count('"'), True
        yield ('"' * (quotes % 2) + "\n" if is_too_long else line), is_too_long


def _open(path: Path, encoding: str) -> io.TextIOWrapper:
    """The file as text, after its mark. Raises SourceRefused where the mark says another encoding than is stated."""
    binary = path.open("rb")
    try:
        start = binary.read(4)
        binary.seek(0)
        marked = next((name for mark, name in _MARKED.items() if start.startswith(mark)), None)
        stated = codecs.lookup(encoding).name
        if marked and not stated.startswith(marked):
            raise SourceRefused(
                f"{path} begins with the mark of {marked}, stated is {encoding}; "
                f"state {marked} (table.encoding in params.yaml, or --encoding)"
            )
        if marked == "utf-8":
            stated = "utf-8-sig"
        return io.TextIOWrapper(binary, stated, errors="surrogateescape")
    except BaseException:
        binary.close()
        raise
