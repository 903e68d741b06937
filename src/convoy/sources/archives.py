"""Archives of strangers: looked through before anything is read, and read one member at a time into memory."""

import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from convoy.sources.items import SourceRefused

MAX_MEMBERS = 20_000_000
# What is inside may be so many times the archive's size: photos are 1, plain texts 3 to 10, a bomb over 1,000.
MAX_RATIO = 200
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LEADS_OUT = re.compile(r"^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)")

Member = tuple[str, int, Callable[[], bytes]]


def is_archive(path: Path) -> bool:
    """Told from the name, as people tell it."""
    return path.name.lower().endswith(SUFFIXES)


def refuse_hostile(path: Path) -> list[str]:
    """The names in an archive (folders end in /). Raises SourceRefused, which names the member and what is wrong."""
    names: list[str] = []
    seen: set[str] = set()
    total = 0
    most = MAX_RATIO * max(path.stat().st_size, 10_000)
    for name, size, what in _headers(path):
        if what:
            raise SourceRefused(f"{path}: {name!r} is {what}; only files and folders are read")
        if _LEADS_OUT.search(name):
            raise SourceRefused(f"{path}: the name {name!r} could lead out of the folder it is unpacked to")
        if name in seen:
            raise SourceRefused(f"{path}: {name!r} is there twice; which of them is meant?")
        total += size
        if total > most:
            raise SourceRefused(f"{path} would unpack to over {most} bytes, {MAX_RATIO} times its size: a bomb")
        if len(names) >= MAX_MEMBERS:
            raise SourceRefused(f"{path} has more than {MAX_MEMBERS} members")
        names.append(name)
        if not name.endswith("/"):
            seen.add(name)
    return names


def _headers(path: Path) -> Iterator[tuple[str, int, str]]:
    """Name, unpacked size, and what it is where that is nothing to be read."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                kind = entry.external_attr >> 28  # of Unix: 8 is a file, 4 a folder, 0 not told
                what = "encrypted" if entry.flag_bits & 1 else "" if kind in (0, 4, 8) else "a link or a device"
                # orig_filename: zipfile cuts a name at its first NUL
                yield entry.orig_filename, entry.file_size, what
        return
    with tarfile.open(path) as tar:
        for member in tar:
            what = "" if member.isdir() or (member.isreg() and not member.issparse()) else "a link or a device"
            yield member.name + "/" * member.isdir(), member.size, what


def zip_members(path: Path) -> Iterator[Member]:
    """Name, size and content of each member."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield entry.filename, entry.file_size, partial(archive.read, entry)


def tar_members(path: Path) -> Iterator[Member]:
    """Name, size and content of each member; a content can be read until the next member is asked for."""
    with tarfile.open(path) as tar:
        for member in tar:
            stream = None if member.isdir() else tar.extractfile(member)
            read = stream.read if stream is not None else bytes
            yield member.name + "/" * member.isdir(), member.size, read
            tar.members = []  # type: ignore[attr-defined]  # or every header is kept, of which there may be millions
