"""Finds which kind of data a path holds: asked are the kinds themselves, about some of its files."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from os.path import isfile  # Path.is_file raises for a cell that is too long for a name
from pathlib import Path, PurePosixPath

from convoy.kinds.registry import KINDS, module
from convoy.operations.init.columns import Rows, files_in, holds_files
from convoy.sources.items import SourceRefused
from convoy.sources.trees import open_tree, read_file

FILES = 5_000  # whose names are looked at
READ_PER_SUFFIX = 20  # files of one suffix that are read
FEW = 0.05  # files of another kind up to this share are strays
MOST = 0.5  # cells of a column that name files, from this share on, are no texts


def kind_of_files(path: Path) -> str:
    """The kind of the files below a folder, or in an archive of one.

    Raises SourceRefused where they could be of several kinds, or are of none.
    """
    suffixes, kinds = _count_files(path)
    likely = [kind for kind, count in kinds.items() if count > FEW * kinds.total()]
    if len(likely) == 1:
        return likely[0]
    seen = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(5))
    raise _refuse(path, f"files: {seen or 'none'}", likely)


def kind_of_rows(table: Path, rows: Rows) -> str:
    """The kind of a table: that of the files that it names, else the one whose items are its cells.

    Raises SourceRefused where it names files that are of no kind.
    """
    if named := kind_of_named_files(rows, table.parent, KINDS):
        return named
    for name in files_in(rows, table.parent):
        if sum(isfile(table.parent / str(row.get(name))) for row in rows) > MOST * len(rows):
            raise _refuse(table, f"its column {name!r} names files, which are of none", [])
    of_cells = [kind for kind in KINDS if not holds_files(kind)]
    if len(of_cells) > 1:
        raise _refuse(table, "a table", of_cells)
    return of_cells[0]


def kind_of_named_files(rows: Rows, folder: Path, kinds: Sequence[str]) -> str | None:
    """The kind of the files that a table in `folder` names; None where it names none of these kinds."""
    named = [folder / str(row[name]) for name in files_in(rows, folder) for row in rows if row.get(name)]
    files = [file for file in named if isfile(file)][:READ_PER_SUFFIX]
    found = {kind for file in files for kind in _kinds_of(file.name, partial(read_file, file))}
    return next((kind for kind in kinds if holds_files(kind) and kind in found), None)


def _count_files(path: Path) -> tuple[Counter[str], Counter[str]]:
    """How many files there are by their suffix and, of those that a kind recognises, by kind.

    Files outside of all folders have no label; they count where there are no others.
    """
    inside, outside = Counter[str](), Counter[str]()
    recognised: set[tuple[str, str]] = set()
    files = (file for file in open_tree(path).files if not (file.name.endswith("/") or file.is_hidden or file.problem))
    for file in islice(files, FILES):
        counted, suffix = outside if len(file.parts) == 1 else inside, PurePosixPath(file.name).suffix.lower()
        counted[suffix] += 1
        if counted[suffix] <= READ_PER_SUFFIX:
            recognised.update((kind, suffix) for kind in _kinds_of(file.name, file.read))
    suffixes = inside or outside
    return suffixes, Counter({kind: sum(suffixes[suffix] for of, suffix in recognised if of == kind) for kind in KINDS})


def _kinds_of(name: str, read: Callable[[], bytes]) -> list[str]:
    try:
        content = read()
    except OSError:
        return []
    return [kind for kind in KINDS if module(kind, "survey").recognises(name, content)]


def _refuse(path: Path, seen: str, likely: list[str]) -> SourceRefused:
    if likely:
        return SourceRefused(f"{path} could be {' or '.join(likely)} ({seen}); say which with --kind")
    expected = "; ".join(f"{kind}: {module(kind, 'survey').EXPECTED}" for kind in KINDS)
    return SourceRefused(f"{path} is of no kind that is known ({seen}); {expected}; --kind states it")
