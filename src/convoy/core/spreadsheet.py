"""Cells of a CSV file that a person may open: none is a formula, and all can be read back."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

# OWASP, CSV Injection: a cell that begins with = + - @, their full-width forms, a tab or a line end. Numbers are none.
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def to_csv(rows: Iterable[Sequence[str | int]]) -> str:
    """The rows, each on a line that ends in \\n, their texts escaped as by `escape`."""
    lines = []
    for row in rows:
        stream = io.StringIO(newline="")
        # Before Python 3.13 the csv module does not quote a carriage return unless its lines end in one.
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow([escape(cell) if isinstance(cell, str) else cell for cell in row])
        lines.append(stream.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def escape(cell: str) -> str:
    """The cell, with an apostrophe before it where a spreadsheet could run it as a formula."""
    return f"'{cell}" if _is_formula(cell) else cell


def unescape(cell: str) -> str:
    """The cell that `escape` took."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    bare = cell.lstrip("'")  # else a cell that begins with an apostrophe would be read back without it
    return bool(_FORMULA.match(bare)) and not _NUMBER.fullmatch(bare)
