"""A quoted cell of several lines -> whether it is a text, or rows of the table between two stray quotes."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MAX_VALUES = 10_000  # of a column; of one with more, as ids, only their shape counts
MAX_CHARACTERS = 64  # of a value; longer cells are texts
MAX_SLIPS, MAX_SLIP_SHARE = 2, 0.1  # cells of a column that are the only one of their value: rare labels, slips
_DIGITS = re.compile(r"\d+")
_TABLE_COMMA = re.compile(r",(?!\s)")  # a comma of a text has a blank after it


@dataclass(frozen=True)
class UsualValues:
    """What recurs in the columns of a table: whole values (labels, ratings), or else all but digits (ids, dates).

    `is_spaced`: most rows have a blank after each delimiter, as texts have after a comma.
    """

    values: dict[int, frozenset[str]]
    shapes: dict[int, frozenset[str]]
    is_spaced: bool = False

    @classmethod
    def of(cls, rows: Iterable[Sequence[str]], width: int) -> "UsualValues":
        """Count the values and shapes of the rows that have `width` cells."""
        values, shapes = _ValueCounts(width), _ValueCounts(width)
        spaced = 0
        for cells in rows:
            if len(cells) == width:
                spaced += 1 if all(cell.startswith(" ") for cell in cells[1:]) else -1
                values.add(cells)
                shapes.add([cell if len(cell) > MAX_CHARACTERS else _shape_of(cell) for cell in cells])
        whole_values = {column: usual for column, usual in values.recurring().items() if usual != {""}}
        other_shapes = {column: usual for column, usual in shapes.recurring().items() if column not in whole_values}
        return cls(whole_values, other_shapes, is_spaced=spaced > 0)

    def agree(self, cells: dict[int, str]) -> bool:
        """Whether each of these cells, by column, has a value or shape that recurs in its column, if any does."""
        return all(
            cell in self.values[column] if column in self.values else _shape_of(cell) in self.shapes[column]
            for column, cell in cells.items()
            if column in self.values or column in self.shapes
        )

    def has_word(self, cells: dict[int, str]) -> bool:
        """Whether one of these cells is a value that recurs, and no number."""
        return any(cell.strip("0123456789.-") for column, cell in cells.items() if column in self.values)

    def has_any(self, cells: dict[int, str]) -> bool:
        """Whether one of these cells is in a column of recurring values or shapes, and not empty."""
        return any(cell for column, cell in cells.items() if column in self.values or column in self.shapes)

    def is_empty(self) -> bool:
        """Whether nothing recurs but empty cells, so that only delimiters show what a row is."""
        return not any(any(usual) for usual in (*self.values.values(), *self.shapes.values()))

    def are_delimited(self, cells: dict[int, str]) -> bool:
        """Whether these cells stand between delimiters rather than between a text's own commas, which blanks follow."""
        _, *others = cells.values()
        is_written = self.is_spaced or not any(cell[:1].isspace() for cell in others)
        return is_written and all(cell or column in self.shapes for column, cell in cells.items())


class _ValueCounts:
    """How often each column has each value."""

    def __init__(self, width: int) -> None:
        self._counters: list[Counter[str] | None] = [Counter() for _ in range(width)]
        self._rows = 0

    def add(self, cells: Sequence[str]) -> None:
        self._rows += 1
        for column, counter in enumerate(self._counters):
            if counter is not None and len(cells[column]) <= MAX_CHARACTERS:
                counter[cells[column]] += 1
                if len(counter) > MAX_VALUES:
                    self._counters[column] = None

    def recurring(self) -> dict[int, frozenset[str]]:
        """By column, the values that are there more than once, where hardly any others are."""
        recurring = {}
        for column, counter in enumerate(self._counters):
            repeated = {value: count for value, count in (counter or {}).items() if count > 1}
            usual = sum(repeated.values())
            if usual > self._rows - usual <= max(MAX_SLIPS, self._rows * MAX_SLIP_SHARE):
                recurring[column] = frozenset(repeated)
        return recurring


def holds_rows(cells: Sequence[str], width: int, delimiter: str, usual: UsualValues) -> bool:
    """Whether lines within a cell are rows by themselves: they have `width` cells, with the usual values.

    One line with a usual word, as a label, in the right place is enough: a text has none between two delimiters.
    Texts may have numbers there, and so ids and dates: then more than half of the lines must be rows. Where nothing
    recurs, tabs in most lines decide, as texts have few, or commas without a blank after them. In a table of one column
    each line could be a row.
    """
    if width < 2:
        return True

    def is_row(reading: dict[int, str]) -> bool:
        is_whole = len(reading) > 1 and (delimiter == "\t" or (usual.is_empty() and usual.are_delimited(reading)))
        return usual.agree(reading) and (is_whole or usual.has_any(reading))

    lines = [line for column, cell in enumerate(cells[:width]) for line in _lines_of_cell(cell, column, width)]
    readings_of = [_read_line(line, columns, delimiter) for line, columns in lines]
    if any(usual.agree(reading) and usual.has_word(reading) for readings in readings_of for reading in readings):
        return True
    return 2 * sum(any(map(is_row, readings)) for readings in readings_of) > len(readings_of)


def _lines_of_cell(cell: str, column: int, width: int) -> Iterator[tuple[str, range]]:
    """The lines of a cell of several lines, each with the columns that it has if it is a row, or a part of one.

    The first line is left out where it ends its row, the last one where it starts it: they are the text's own cell.
    """
    if "\n" not in cell:
        return
    first, *between, last = cell.split("\n")
    if column < width - 1:
        yield first, range(column, width)
    yield from ((line, range(width)) for line in between if line)
    if column > 0:
        yield last, range(column + 1)


def _read_line(line: str, columns: range, delimiter: str) -> list[dict[int, str]]:
    """A line's cells by their column, in each way to read it; nothing where they are too few.

    The ways: as csv reads it; with commas before a blank as a text's own; of too many cells the last one alone.
    """
    if line.count(delimiter) < len(columns) - 1:  # nearly all lines of texts, and csv takes longer
        return []
    cells = split_line(line, delimiter)
    readings = [cells, _TABLE_COMMA.split(line)] if delimiter == "," else [cells]
    fitting = [dict(zip(columns, reading, strict=True)) for reading in readings if len(reading) == len(columns)]
    return [*fitting, {columns[-1]: cells[-1]}] if len(cells) > len(columns) else fitting


def split_line(line: str, delimiter: str) -> list[str]:
    """The cells of one line, whose quotes are a text's own where they do not pair within it."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE), [])


def _shape_of(cell: str) -> str:
    return _DIGITS.sub("9", cell)
