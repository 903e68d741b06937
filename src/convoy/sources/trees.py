"""A folder, or an archive of one, as files with relative names; nothing is ever unpacked to disk."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

from convoy.sources.archives import is_archive, is_zip, readable, refuse_hostile, tar_members, zip_members
from convoy.sources.items import SourceRefused

MAX_FILE_BYTES = 100_000_000  # 16 million pixels as a PNG that compresses nothing are 48 MB
HIDDEN = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file below the tree's root, or a folder (its name ends in /); `problem` says why it must not be read."""

    name: str
    read: Callable[[], bytes]
    problem: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders and the name."""
        return PurePosixPath(self.name).parts

    @property
    def is_hidden(self) -> bool:
        """Whether an operating system put it there."""
        return any(map(_is_hidden, self.parts))


@dataclass(frozen=True)
class Tree:
    """The names of the outermost folders, hidden ones apart, and all files."""

    outermost: frozenset[str]
    files: Iterator[TreeFile]


def open_tree(path: Path) -> Tree:
    """The files of a folder, sorted, or of a .zip or .tar.*, in its order.

    An archive's one outermost folder is left out of the names. Raises SourceRefused for anything else, and for an
    archive that is damaged, encrypted, a bomb, or that holds links, devices or names that lead out of it.
    """
    if path.is_dir():
        outermost = frozenset(file.name for file in path.iterdir() if file.is_dir())
        return Tree(frozenset(name for name in outermost if not _is_hidden(name)), _walk_folder(path))
    if not path.exists():
        raise SourceRefused(f"{path} does not exist; correct the path in params.yaml")
    if is_archive(path):
        with readable(path):
            names = refuse_hostile(path)
        visible = [name for name in names if name and not any(map(_is_hidden, PurePosixPath(name).parts))]
        root = _common_folder(visible)
        inner = [name[len(root) :] for name in visible]
        return Tree(frozenset(name.partition("/")[0] for name in inner if "/" in name), _walk_archive(path, root))
    raise SourceRefused(f"{path} is neither a folder nor a .zip or .tar archive of one")


def _walk_folder(root: Path) -> Iterator[TreeFile]:
    inside = root.resolve()
    for path, is_folder in paths_below(root):
        name = printable(path.relative_to(root))
        if not is_folder:
            yield TreeFile(name, partial(read_file, path), _problem_of(path, inside))
        elif path.is_symlink():
            yield TreeFile(name, bytes, "a link to a folder is not followed; copy what it leads to")
        else:
            yield TreeFile(f"{name}/", bytes)


def paths_below(root: Path) -> Iterator[tuple[Path, bool]]:
    """Everything below a folder, in a fixed order, and whether it is a folder; links to folders are not followed.

    Raises OSError for a folder that cannot be read.
    """
    for folder, folders, files in os.walk(root, onerror=_raise_error):
        folders.sort()
        yield from ((Path(folder, name), True) for name in folders)
        yield from ((Path(folder, name), False) for name in sorted(files))


def _raise_error(error: OSError) -> None:
    raise error  # os.walk would go on without that folder


def read_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The content of a file. Raises OSError where it cannot be read, with EFBIG where it is too large."""
    with path.open("rb") as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes")
    return content


def printable(path: PurePath | str) -> str:
    """The name as text that can be printed and written to a table; bytes that are no UTF-8 become escapes.

    In the locale C, Python decodes every byte that is not ASCII as a surrogate, even in names that are UTF-8.
    """
    try:
        content = str(path).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        content = str(path).encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


def _problem_of(path: Path, root: Path) -> str:
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(root):
            return "a link that leads out of the folder"
        return "" if path.is_file() else "no regular file"
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, in Python 3.11 and 3.12
        return "a link that leads nowhere"


def _walk_archive(path: Path, root: str) -> Iterator[TreeFile]:
    with readable(path):
        for name, size, read in zip_members(path) if is_zip(path) else tar_members(path):
            inner = name.removeprefix(root)
            if inner:
                problem = f"larger than {MAX_FILE_BYTES} bytes" if size > MAX_FILE_BYTES else ""
                yield TreeFile(inner, _refuse_damage(read, path), problem)


def _common_folder(names: list[str]) -> str:
    """The one folder that holds everything, with its /, or ''."""
    outermost = {name.partition("/")[0] for name in names}
    return f"{outermost.pop()}/" if len(outermost) == 1 and all("/" in name for name in names) else ""


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part.lower() in HIDDEN


def _refuse_damage(read: Callable[[], bytes], path: Path) -> Callable[[], bytes]:
    def read_checked() -> bytes:
        with readable(path):
            return read()

    return read_checked
