"""Lines of an untrusted CSV, TSV or JSONL file -> rows, or the reason why a line is none, with its number."""

import codecs
import csv
import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from convoy.sources.items import SourceRefused
from convoy.sources.stray_quotes import UsualValues, holds_rows, split_line

MAX_LINE_CHARACTERS = 1_000_000  # the longest review has 13,704
TOO_LONG = f"longer than {MAX_LINE_CHARACTERS} characters"
MAX_ROW_LINES = 1_000  # a quote that is never closed would take in the rest of the file
FIRST_LINE = "the first line, which must name the columns,"
REMEDY = (
    "expected: the quotes of a cell close in its own row; remove the stray ones, or write each twice in a quoted cell"
)
JOINED = (
    "stray quotes join lines {first} to {last}: some are rows by themselves, or one quote has no other; "
    f"{REMEDY}; a table whose texts do hold such lines can be read as JSONL or Parquet"
)
JOINED_IN_ONE_COLUMN = (
    "quotes join lines {first} to {last}: in a table of one column these may be one text or rows of their own; "
    f"{REMEDY}; a table of texts of several lines needs a second column, as an id, or can be read as JSONL or Parquet"
)
# A row of a table: its cells by column, or what is wrong with it.
Row = dict[str, object] | str
Numbered = tuple[int, Row]
# UTF-32 comes first: the mark of its little-endian form begins with that of UTF-16.
_MARKED_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class _Lines:
    """Lines of text with their numbers, from 1; of a CSV row that fails all lines but the first are put back."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.number = 0  # of the line that was read last
        self.row_lines: list[tuple[str, bool]] = []  # since the row began, and whether it was too long
        self._unread = _read_bounded(stream)
        self._returned: deque[tuple[str, bool]] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.row_lines) >= MAX_ROW_LINES:
            raise csv.Error(f"a quote is not closed within {MAX_ROW_LINES} lines")
        self.row_lines.append(self._returned.popleft() if self._returned else next(self._unread))
        self.number += 1
        return self.row_lines[-1][0]

    def begin_row(self) -> int:
        """The number of the line that comes next."""
        self.row_lines.clear()
        return self.number + 1

    def row_is_too_long(self) -> bool:
        """Whether one of the row's lines was too long: then its cells are not those of the file."""
        return any(is_too_long for _, is_too_long in self.row_lines)

    def put_back(self) -> None:
        """Let the lines after the row's first one be read again."""
        returned = self.row_lines[1:]
        self._returned.extendleft(reversed(returned))
        self.number -= len(returned)


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
    with _open_text(path, encoding) as stream:
        lines = _Lines(stream)
        header = _read_header(path, delimiter, lines)
        require_columns(path, header, wanted)
        kept_columns = [index for index, name in enumerate(header) if not wanted or name in (*wanted, *also)]
        table = _TableReader(path, delimiter, encoding, header, kept_columns)
        for parsed in _parse_rows(lines, delimiter):
            yield from table.to_rows(parsed)


@dataclass(frozen=True, slots=True)
class _ParsedRow:
    """One row as the csv module reads it: the number of its first line, its lines, and its cells or its problem."""

    number: int
    lines: list[str]
    cells: list[str]
    problem: str = ""
    is_too_long: bool = False

    def has_odd_quotes(self) -> bool:
        return sum(line.count('"') for line in self.lines) % 2 == 1


def _parse_rows(lines: _Lines, delimiter: str) -> Iterator[_ParsedRow]:
    """The rows from here on, blank ones without cells; after a row that fails, its second line is read next."""
    csv.field_size_limit(MAX_ROW_LINES * MAX_LINE_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            first, is_too_long = lines.row_lines[0]
            lines.put_back()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            yield _ParsedRow(number, [first], [], f"line {number} is no row of a table: {error}; {REMEDY}", is_too_long)
            continue
        yield _ParsedRow(number, [line for line, _ in lines.row_lines], cells, "", lines.row_is_too_long())


def _parse_again(path: Path, delimiter: str, encoding: str) -> Iterator[_ParsedRow]:
    with _open_text(path, encoding) as stream:
        lines = _Lines(stream)
        _read_header(path, delimiter, lines)
        yield from _parse_rows(lines, delimiter)


class _TableReader:
    """Rows as the csv module reads them -> cells by column, or what is wrong with a row or a line, with its number.

    A TSV mostly is written without quoting: there a quote without a partner in its line is an ordinary character.
    """

    def __init__(self, path: Path, delimiter: str, encoding: str, header: list[str], kept_columns: list[int]) -> None:
        self._source = (path, delimiter, encoding)
        self._delimiter = delimiter
        self._encoding = encoding
        self._header = header
        self._kept_columns = kept_columns
        self._has_one_column = len(header) == 1

    @cached_property
    def _usual_values(self) -> UsualValues:
        """Found by a second read of the whole table, which only tables with a row of several lines need.

        Where nothing recurs in the rows, a quote may have joined them all: then the single lines are counted.
        """
        width = len(self._header)
        usual = UsualValues.of((parsed.cells for parsed in _parse_again(*self._source)), width)
        if usual.values or usual.shapes:
            return usual
        lines = (line for parsed in _parse_again(*self._source) for line in parsed.lines)
        return UsualValues.of((split_line(line, self._delimiter) for line in lines), width)

    def to_rows(self, parsed: _ParsedRow) -> Iterator[Numbered]:
        """Blank lines are no rows, as in pandas; in a table of one column they are empty cells."""
        last = parsed.number + len(parsed.lines) - 1
        if last > parsed.number and self._joins_rows(parsed):
            yield from self._split_rows(parsed, last)
            return
        if not (parsed.cells or parsed.problem or parsed.is_too_long or self._has_one_column):
            return
        row: Row = TOO_LONG
        if not parsed.is_too_long and parsed.problem:
            row = self._read_unquoted(parsed.lines[0], parsed.problem)
        elif not parsed.is_too_long:
            row = self._to_row(parsed.cells or [""])
        if isinstance(row, str) and last > parsed.number:
            row = f"lines {parsed.number} to {last}, which a quote joins: {row}"
        yield parsed.number, row

    def _joins_rows(self, parsed: _ParsedRow) -> bool:
        """Whether stray quotes made one row of several; of an odd number of quotes one is stray."""
        width = len(self._header)
        return parsed.has_odd_quotes() or holds_rows(parsed.cells, width, self._delimiter, self._usual_values)

    def _split_rows(self, parsed: _ParsedRow, last: int) -> Iterator[Numbered]:
        problem = (JOINED_IN_ONE_COLUMN if self._has_one_column else JOINED).format(first=parsed.number, last=last)
        may_be_one_text = self._has_one_column and not parsed.has_odd_quotes()
        for number, line in enumerate(parsed.lines, parsed.number):
            if line.strip("\n") or self._has_one_column:
                yield number, problem if parsed.is_too_long or may_be_one_text else self._read_unquoted(line, problem)

    def _read_unquoted(self, line: str, problem: str) -> Row:
        """A line by itself in a TSV, where it is a row like the others; else the problem."""
        if self._delimiter != "\t":
            return problem
        cells = split_line(line, self._delimiter)
        is_row = self._usual_values.agree({column: cell.strip('"') for column, cell in enumerate(cells)})
        return self._to_row(cells) if len(cells) == len(self._header) and is_row else problem

    def _to_row(self, cells: list[str]) -> Row:
        if len(cells) != len(self._header):
            return f"{len(cells)} cells, the first line names {len(self._header)} columns"
        kept = [cells[index] for index in self._kept_columns]
        names = (self._header[index] for index in self._kept_columns)
        return _problem_of(kept, self._encoding) or dict(zip(names, kept, strict=True))


def read_jsonl(path: Path, encoding: str) -> Iterator[Numbered]:
    """One JSON object per line; empty lines are skipped."""
    with _open_text(path, encoding) as stream:
        for number, (line, is_too_long) in enumerate(_read_bounded(stream), start=1):
            if is_too_long:
                yield number, TOO_LONG
            elif line.strip():
                yield number, _parse_json(line, encoding)


def _parse_json(line: str, encoding: str) -> Row:
    problem = _problem_of([line], encoding)
    if problem:
        return problem
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {getattr(error, 'msg', None) or type(error).__name__}"
    return row if isinstance(row, dict) else "no JSON object"


def _read_header(path: Path, delimiter: str, lines: _Lines) -> list[str]:
    lines.begin_row()
    try:
        header = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter, strict=True))]
    except StopIteration:
        raise SourceRefused(f"{path} is empty; its first line must name the columns") from None
    except csv.Error as error:
        raise SourceRefused(f"{path}:1: {FIRST_LINE} is no row: {error}; {REMEDY}") from None
    if len(lines.row_lines) > 1:
        raise SourceRefused(
            f"{path}:1: {FIRST_LINE} has a quote that closes in line {lines.number} only; "
            "remove it where it is a stray one, and write a column's name in one line"
        )
    if lines.row_is_too_long():
        raise SourceRefused(f"{path}:1: {FIRST_LINE} is {TOO_LONG}")
    repeated = {name for name in header if header.count(name) > 1 and name}
    if repeated:
        raise SourceRefused(f"{path}:1: the columns {', '.join(sorted(repeated))} are there twice; rename one of each")
    return header


def _problem_of(cells: list[str], encoding: str) -> str:
    for cell in cells:
        if len(cell) > MAX_LINE_CHARACTERS:
            return TOO_LONG
        if "\0" in cell:
            return "a NUL character"
        if not cell.isascii():
            undecoded = next((character for character in cell if "\udc80" <= character <= "\udcff"), "")
            if undecoded:  # as surrogateescape marks a byte that could not be decoded
                return f"not {encoding}: byte 0x{ord(undecoded) - 0xDC00:02x}"
    return ""


def _read_bounded(stream: io.TextIOWrapper) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it was too long; of a long line only a quote is left, where its quotes are odd."""
    while line := stream.readline(MAX_LINE_CHARACTERS + 2):
        quotes, is_too_long, part = line.count('"'), False, line
        while not part.endswith("\n") and (part := stream.readline(MAX_LINE_CHARACTERS)):
            quotes, is_too_long = quotes + part.count('"'), True
        yield ('"' * (quotes % 2) + "\n" if is_too_long else line), is_too_long


def _open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """The file as text, after its byte order mark. Raises SourceRefused where the mark is of another encoding."""
    binary = path.open("rb")
    try:
        start = binary.read(4)
        binary.seek(0)
        marked = next((name for mark, name in _MARKED_ENCODINGS.items() if start.startswith(mark)), None)
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
