"""Archives of strangers: looked through before anything is read, and read one member at a time into memory."""

import bz2
import errno
import gzip
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, cast

from convoy.sources.items import SourceRefused

MAX_MEMBERS = 20_000_000
# What is inside may be so many times the archive's size: photos are 1, plain texts 3 to 10, a bomb over 1,000.
MAX_RATIO = 200
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# What zipfile, tarfile and the modules below them raise for bytes that they do not expect.
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, IndexError, OverflowError),
)
_BLOCK = 1 << 20  # bytes read at once
_USUAL_HEADER, _MAX_HEADER = 8_192, 1 << 20  # bytes of a tar's header; a name has 4,096 at most, the rest is attributes
_END_RECORD = 22  # bytes of a zip's last record, before its comment of up to 65,535
_MAX_PADDING = 1 << 24  # after a tar's end; GNU tar fills up a record, which is 10 KiB by default
# By the first bytes.
_ZIP = (b"PK\3\4", b"PK\5\6")  # the second is a zip without members
_GZIP = b"\x1f\x8b"
_PACKED: dict[bytes, Callable[..., Any]] = {_GZIP: gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_HERE = re.compile(r"^(\./+)+")
_LEADS_OUT = re.compile(r"^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)")

Member = tuple[str, int, Callable[[], bytes]]


def is_archive(path: Path) -> bool:
    """Told from the name, as people tell it."""
    return path.name.lower().endswith(SUFFIXES)


def is_zip(path: Path) -> bool:
    """Whether a file is read as a zip. All who look into archives ask here, so that all see the same members.

    Decided by the first bytes. `zipfile.is_zipfile` looks for a zip's end in the last 64 KB: it takes a tar whose last
    member is a zip, or to which one was appended, for that zip.
    """
    return _start(path).startswith(_ZIP)


def leads_out(name: str) -> bool:
    """Whether a name could lead out of the folder it is unpacked to: absolute, with .., a backslash or a drive."""
    return _LEADS_OUT.search(name) is not None


def tar_mode(path: Path) -> Literal["r:", "r:gz"]:
    """The mode in which tarfile opens a plain or gzipped tar and nothing else. Raises SourceRefused for other kinds."""
    start = _start(path)
    if start.startswith((*_ZIP, *(mark for mark in _PACKED if mark != _GZIP))):
        raise SourceRefused(f"{path} is no tar, plain or packed by gzip; name the file that was written")
    return "r:gz" if start.startswith(_GZIP) else "r:"


def refuse_hostile(path: Path) -> list[str]:
    """The names in an archive (folders end in /, '' is where it was made).

    Raises SourceRefused, which names the member and what is wrong.
    """
    return _harmless(path, _headers(path))


def refuse_hostile_tar(path: Path) -> list[str]:
    """As `refuse_hostile`, of a file that tarfile will open in the mode `tar_mode` gives: a zip is refused."""
    tar_mode(path)
    return _harmless(path, _tar_headers(path))


def _harmless(path: Path, headers: Iterator[tuple[str, int, str]]) -> list[str]:
    names: list[str] = []
    seen: set[str] = set()
    total = 0
    most = most_unpacked(path)
    for name, size, what in headers:
        if what:
            raise SourceRefused(f"{path}: {name!r} is {what}; only files and folders are read")
        if leads_out(name):
            raise SourceRefused(f"{path}: the name {name!r} could lead out of the folder it is unpacked to")
        if name in seen:
            raise SourceRefused(f"{path}: {name!r} is there twice; which of them is meant?")
        if size < 0:
            raise SourceRefused(f"{path}: {name!r} is {size} bytes long: the archive is damaged")
        total += size
        if total > most:
            raise SourceRefused(f"{path} would unpack to over {most} bytes, {MAX_RATIO} times its size: a bomb")
        if len(names) >= MAX_MEMBERS:
            raise SourceRefused(f"{path} has more than {MAX_MEMBERS} members")
        names.append(name)
        if not name.endswith("/"):
            seen.add(name)
    return names


def most_unpacked(path: Path) -> int:
    """How many bytes may come out of a packed file that is no bomb."""
    return MAX_RATIO * max(path.stat().st_size, 10_000)


@contextmanager
def readable(where: Path | str, remedy: str = "get it again, or name the unpacked folder") -> Iterator[None]:
    """Whatever zipfile, tarfile, zlib and the like report of a damaged file is a SourceRefused."""
    try:
        yield
    except SourceRefused:
        raise
    except DAMAGE as error:
        raise SourceRefused(f"{where} is damaged: {error}; {remedy}") from None
    except OSError as error:
        # As zipfile and gzip raise it there is no errno; EINVAL is a zip's seek to before its beginning.
        told = "cannot be read" if error.errno not in (None, errno.EINVAL) else "is damaged"
        raise SourceRefused(f"{where} {told}: {error.strerror or error}; {remedy}") from None


def _headers(path: Path) -> Iterator[tuple[str, int, str]]:
    """Name, unpacked size, and what it is where that is nothing to be read."""
    return _zip_headers(path) if is_zip(path) else _tar_headers(path)


def _zip_headers(path: Path) -> Iterator[tuple[str, int, str]]:
    with zipfile.ZipFile(path) as archive:
        _require_all(path, archive)
        for entry in archive.infolist():
            # orig_filename: zipfile cuts a name at its first NUL
            yield _plain(entry.orig_filename), entry.file_size, _fault_of(entry)


def _tar_headers(path: Path) -> Iterator[tuple[str, int, str]]:
    with _unpacked(path) as stream:
        source = _Headers(path, stream)
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r:") as tar:
            for member in tar:
                what = "" if member.isdir() or (member.isreg() and not member.issparse()) else "a link or a device"
                yield _plain(member.name + "/" * member.isdir()), member.size + source.begin_next(), what
                tar.members = []  # type: ignore[attr-defined]  # or all are kept, of which there may be millions
        _require_end(path, stream, source.last)


def _fault_of(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by another method than deflate"  # zipfile unpacks bzip2 and LZMA without a bound
    kind = entry.external_attr >> 28  # of Unix: 8 is a file, 4 a folder, 0 not told
    return "" if kind in (0, 4, 8) else "a link or a device"


def _require_all(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise SourceRefused where the record at a zip's end counts other members; zipfile does not look at it.

    A flipped bit in the length of a comment makes the rest of the directory that comment.
    """
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _END_RECORD - 0xFFFF))
        end = stream.read()
    start = end.rfind(b"PK\5\6", 0, len(end) - _END_RECORD + 4)
    told, found = int.from_bytes(end[start + 10 : start + 12], "little"), len(archive.infolist())
    if told not in (found & 0xFFFF, 0xFFFF):  # the last stands for a larger one, elsewhere
        raise SourceRefused(f"{path} is damaged: it tells of {told} members, {found} are found; get it again")


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def _unpacked(path: Path) -> IO[bytes]:
    start = _start(path)
    opened: Callable[..., Any] = next((way for mark, way in _PACKED.items() if start.startswith(mark)), open)
    return opened(path, "rb")  # type: ignore[no-any-return]


class _Headers:
    """The stream that tarfile reads headers from, each of them bounded; it keeps the block that was read last."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.seek, self.tell = stream.seek, stream.tell
        self.last = b""
        self._path, self._stream = path, stream
        self._taken = 0

    def begin_next(self) -> int:
        """How many bytes the last header had beyond those of a usual one."""
        beyond, self._taken = max(0, self._taken - _USUAL_HEADER), 0
        return beyond

    def read(self, size: int) -> bytes:
        """As of a file. Raises SourceRefused before a header that is too long is in memory."""
        self._taken += size
        if self._taken > _MAX_HEADER:
            raise SourceRefused(
                f"{self._path} has a header of over {_MAX_HEADER} bytes, for a name or what else: a bomb"
            )
        self.last = self._stream.read(size)
        return self.last


def _require_end(path: Path, stream: IO[bytes], last: bytes) -> None:
    """Raise SourceRefused where a tar does not end with a block of zeros: tarfile takes a bad header for its end.

    What follows is read too, for there are the checksums of gzip, bzip2 and xz.
    """
    if last != bytes(tarfile.BLOCKSIZE):
        raise SourceRefused(
            f"{path} is damaged or cut short: no header of a member, and no end, at byte {stream.tell() - len(last)} "
            "of what it unpacks to; get it again, or name the unpacked folder"
        )
    padding = 0
    while block := stream.read(_BLOCK):
        padding += len(block)
        if block.count(0) != len(block) or padding > _MAX_PADDING:
            raise SourceRefused(f"{path} goes on after the end of its tar; unpack all of it, and name the folder")


def _plain(name: str) -> str:
    """Without the ./ that tar writes where a folder was named so; '' is the folder itself."""
    return _HERE.sub("", name)


def zip_members(path: Path) -> Iterator[Member]:
    """Name, size and content of each member."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield _plain(entry.filename), entry.file_size, partial(_read, archive, entry)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """In blocks, for a directory can lie about a size, and zipfile unpacks all that it is asked for before it cuts."""
    one_more = copy(entry)
    one_more.file_size += 1
    with archive.open(one_more) as stream:
        content = b"".join(iter(partial(stream.read, _BLOCK), b""))
    if len(content) != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename!r} unpacks to another size than the {entry.file_size} bytes told")
    return content


def tar_members(path: Path) -> Iterator[Member]:
    """Name, size and content of each member; a content can be read until the next member is asked for."""
    with _unpacked(path) as source, tarfile.open(fileobj=source, mode="r:") as tar:
        for member in tar:
            stream = None if member.isdir() else tar.extractfile(member)
            read = stream.read if stream is not None else bytes
            yield _plain(member.name + "/" * member.isdir()), member.size, read
            tar.members = []  # type: ignore[attr-defined]  # or every header is kept, of which there may be millions
