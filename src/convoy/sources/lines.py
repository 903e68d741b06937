"""Lines of a CSV, TSV or JSONL file of strangers -> rows, or the reason why a line is none, with its number."""

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
from convoy.sources.stray_quotes import UsualValues, split_line, swallow_rows

MAX_LINE_CHARACTERS = 1_000_000  # the longest review has 13,704
TOO_LONG = f"longer than {MAX_LINE_CHARACTERS} characters"
MAX_ROW_LINES = 1_000  # a quote that is never closed would take in the rest of the file
FIRST = "the first line, which must name the columns,"
CLOSE = (
    "expected: the quotes of a cell close in its own row; remove the stray ones, or write each twice in a quoted cell"
)
JOINED = (
    "stray quotes join lines {first} to {last}: some are rows by themselves, or one quote has no other; "
    f"{CLOSE}; a table whose texts do hold such lines can be read as JSONL or Parquet"
)
JOINED_IN_ONE_COLUMN = (
    "quotes join lines {first} to {last}: in a table of one column these may be one text or rows of their own; "
    f"{CLOSE}; a table of texts of several lines needs a second column, as an id, or can be read as JSONL or Parquet"
)
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
        header = _header(path, delimiter, lines)
        require_columns(path, header, wanted)
        looked_at = [index for index, name in enumerate(header) if not wanted or name in (*wanted, *also)]
        table = _Table(path, delimiter, encoding, header, looked_at)
        for parsed in _parse_csv(lines, delimiter):
            yield from table.judge(parsed)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """One row as the csv module reads it: the number of its first line, its lines, and its cells or its fault."""

    number: int
    lines: list[str]
    cells: list[str]
    fault: str = ""
    is_too_long: bool = False

    def has_odd_quotes(self) -> bool:
        return sum(line.count('"') for line in self.lines) % 2 == 1


def _parse_csv(lines: _Lines, delimiter: str) -> Iterator[_Parsed]:
    """The rows from here on, blank ones without cells; after one that is none, the line after its first one is next."""
    csv.field_size_limit(MAX_ROW_LINES * MAX_LINE_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            first, is_too_long = lines.given[0]
            lines.put_back()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            yield _Parsed(number, [first], [], f"line {number} is no row of a table: {error}; {CLOSE}", is_too_long)
            continue
        yield _Parsed(number, [line for line, _ in lines.given], cells, "", lines.are_too_long())


def _parse_again(path: Path, delimiter: str, encoding: str) -> Iterator[_Parsed]:
    with _open(path, encoding) as stream:
        lines = _Lines(stream)
        _header(path, delimiter, lines)
        yield from _parse_csv(lines, delimiter)


class _Table:
    """Rows as the csv module reads them -> cells by column, or what is wrong with a row or a line, with its number.

    In a TSV, which mostly is written without quoting, a quote that does not pair in its line is a character as others.
    """

    def __init__(self, path: Path, delimiter: str, encoding: str, header: list[str], looked_at: list[int]) -> None:
        self._place = (path, delimiter, encoding)
        self._delimiter = delimiter
        self._encoding = encoding
        self._header = header
        self._looked_at = looked_at
        self._is_narrow = len(header) == 1

    @cached_property
    def _usual(self) -> UsualValues:
        """Found by reading the whole table once more, which few tables need: those with a row of several lines.

        Where nothing recurs in its rows, a quote may have joined them all: then its lines are looked at.
        """
        width = len(self._header)
        usual = UsualValues.of((parsed.cells for parsed in _parse_again(*self._place)), width)
        if usual.values or usual.shapes:
            return usual
        lines = (line for parsed in _parse_again(*self._place) for line in parsed.lines)
        return UsualValues.of((split_line(line, self._delimiter) for line in lines), width)

    def judge(self, parsed: _Parsed) -> Iterator[Numbered]:
        """Blank lines are no rows, as in pandas, but in one column, where they are empty cells."""
        last = parsed.number + len(parsed.lines) - 1
        if last > parsed.number and self._joins_rows(parsed):
            yield from self._one_by_one(parsed, last)
            return
        if not (parsed.cells or parsed.fault or parsed.is_too_long or self._is_narrow):
            return
        row: Row = TOO_LONG
        if not parsed.is_too_long:
            row = self._unquoted(parsed.lines[0], parsed.fault) if parsed.fault else self._row(parsed.cells or [""])
        if isinstance(row, str) and last > parsed.number:
            row = f"lines {parsed.number} to {last}, which a quote joins: {row}"
        yield parsed.number, row

    def _joins_rows(self, parsed: _Parsed) -> bool:
        """Whether stray quotes made one row of several; an odd number of quotes cannot all go round cells."""
        return parsed.has_odd_quotes() or swallow_rows(parsed.cells, len(self._header), self._delimiter, self._usual)

    def _one_by_one(self, parsed: _Parsed, last: int) -> Iterator[Numbered]:
        told = (JOINED_IN_ONE_COLUMN if self._is_narrow else JOINED).format(first=parsed.number, last=last)
        could_be_a_text = self._is_narrow and not parsed.has_odd_quotes()
        for number, line in enumerate(parsed.lines, parsed.number):
            if line.strip("\n") or self._is_narrow:
                yield number, told if parsed.is_too_long or could_be_a_text else self._unquoted(line, told)

    def _unquoted(self, line: str, fault: str) -> Row:
        """A line by itself in a TSV, where it then is a row as others are; else the fault."""
        if self._delimiter != "\t":
            return fault
        cells = split_line(line, self._delimiter)
        is_row = self._usual.agree({column: cell.strip('"') for column, cell in enumerate(cells)})
        return self._row(cells) if len(cells) == len(self._header) and is_row else fault

    def _row(self, cells: list[str]) -> Row:
        if len(cells) != len(self._header):
            return f"{len(cells)} cells, the first line names {len(self._header)} columns"
        kept = [cells[index] for index in self._looked_at]
        names = (self._header[index] for index in self._looked_at)
        return _fault_of(kept, self._encoding) or dict(zip(names, kept, strict=True))


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


def _header(path: Path, delimiter: str, lines: _Lines) -> list[str]:
    lines.begin_row()
    try:
        header = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter, strict=True))]
    except StopIteration:
        raise SourceRefused(f"{path} is empty; its first line must name the columns") from None
    except csv.Error as error:
        raise SourceRefused(f"{path}:1: {FIRST} is no row: {error}; {CLOSE}") from None
    if len(lines.given) > 1:
        raise SourceRefused(
            f"{path}:1: {FIRST} has a quote that closes in line {lines.number} only; "
            "remove it where it is a stray one, and write a column's name in one line"
        )
    if lines.are_too_long():
        raise SourceRefused(f"{path}:1: {FIRST} is {TOO_LONG}")
    doubled = {name for name in header if header.count(name) > 1 and name}
    if doubled:
        raise SourceRefused(f"{path}:1: the columns {', '.join(sorted(doubled))} are there twice; rename one of each")
    return header


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
