"""Archives from strangers: all headers are checked before anything is read; members are read one at a time."""

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
from typing import IO, Any, cast

from convoy.sources.items import SourceRefused

MAX_MEMBERS = 20_000_000
# The most that an archive may unpack to, in times its size: photos are 1, plain texts 3 to 10, a bomb over 1,000.
MAX_RATIO = 200
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# What zipfile, tarfile and the modules that they use raise for damaged bytes.
DAMAGE_ERRORS = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, IndexError, OverflowError),
)
_BLOCK_BYTES = 1 << 20  # bytes read at once
_USUAL_HEADER_BYTES, _MAX_HEADER_BYTES = 8_192, 1 << 20  # of a tar; a name has 4,096 at most, the rest is attributes
_END_RECORD_BYTES = 22  # bytes of a zip's last record, before its comment of up to 65,535
_MAX_PADDING_BYTES = 1 << 24  # after a tar's end; GNU tar fills up a record, which is 10 KiB by default
# The kinds of archives, by their first bytes.
_ZIP_MARKS = (b"PK\3\4", b"PK\5\6")  # the second is a zip without members
_GZIP_MARK = b"\x1f\x8b"
_DECOMPRESSORS: dict[bytes, Callable[..., Any]] = {_GZIP_MARK: gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_CURRENT_FOLDER = re.compile(r"^(\./+)+")
_LEADS_OUT = re.compile(r"^/|^[A-Za-z]:|\\|\x00|(^|/)\.\.(/|$)")

Member = tuple[str, int, Callable[[], bytes]]


def is_archive(path: Path) -> bool:
    """Whether the name ends like an archive's; the content is not read."""
    return path.name.lower().endswith(SUFFIXES)


def is_zip(path: Path) -> bool:
    """Whether a file is read as a zip. All readers of archives use this, so that all see the same members.

    Decided by the first bytes. `zipfile.is_zipfile` searches the last 64 KB for a zip's end: it takes a tar whose last
    member is a zip, or to which a zip was appended, for that zip.
    """
    return _first_bytes(path).startswith(_ZIP_MARKS)


def leads_out(name: str) -> bool:
    """Whether a name could lead out of the folder it is unpacked to: absolute, with .., a backslash or a drive."""
    return _LEADS_OUT.search(name) is not None


def refuse_hostile(path: Path) -> list[str]:
    """The names in an archive (folders end in /, '' is the folder that was packed).

    Raises SourceRefused, which names the member and what is wrong.
    """
    return _require_harmless(path, _read_headers(path))


def _require_harmless(path: Path, headers: Iterator[tuple[str, int, str]]) -> list[str]:
    names: list[str] = []
    files: set[str] = set()
    total = 0
    max_bytes = most_unpacked(path)
    for name, size, problem in headers:
        if problem:
            raise SourceRefused(f"{path}: {name!r} is {problem}; only files and folders are read")
        if leads_out(name):
            raise SourceRefused(f"{path}: the name {name!r} could lead out of the folder it is unpacked to")
        if name in files:
            raise SourceRefused(f"{path}: {name!r} is there twice; which of them is meant?")
        if size < 0:
            raise SourceRefused(f"{path}: {name!r} is {size} bytes long: the archive is damaged")
        total += size
        if total > max_bytes:
            raise SourceRefused(f"{path} would unpack to over {max_bytes} bytes, {MAX_RATIO} times its size: a bomb")
        if len(names) >= MAX_MEMBERS:
            raise SourceRefused(f"{path} has more than {MAX_MEMBERS} members")
        names.append(name)
        if not name.endswith("/"):
            files.add(name)
    return names


def most_unpacked(path: Path) -> int:
    """How many bytes a packed file may unpack to; more is a bomb."""
    return MAX_RATIO * max(path.stat().st_size, 10_000)


@contextmanager
def readable(where: Path | str, remedy: str = "get it again, or name the unpacked folder") -> Iterator[None]:
    """Turn what zipfile, tarfile, zlib and the like raise for a damaged file into SourceRefused."""
    try:
        yield
    except SourceRefused:
        raise
    except DAMAGE_ERRORS as error:
        raise SourceRefused(f"{where} is damaged: {error}; {remedy}") from None
    except OSError as error:
        # As zipfile and gzip raise it there is no errno; EINVAL is a zip's seek to before its beginning.
        problem = "cannot be read" if error.errno not in (None, errno.EINVAL) else "is damaged"
        raise SourceRefused(f"{where} {problem}: {error.strerror or error}; {remedy}") from None


def _read_headers(path: Path) -> Iterator[tuple[str, int, str]]:
    """Name, unpacked size, and the problem of a member that must not be read, else ''."""
    return _read_zip_headers(path) if is_zip(path) else _read_tar_headers(path)


def _read_zip_headers(path: Path) -> Iterator[tuple[str, int, str]]:
    with zipfile.ZipFile(path) as archive:
        _require_all_members(path, archive)
        for entry in archive.infolist():
            # orig_filename: zipfile cuts a name at its first NUL
            yield _plain_name(entry.orig_filename), entry.file_size, _problem_of(entry)


def _read_tar_headers(path: Path) -> Iterator[tuple[str, int, str]]:
    with _open_unpacked(path) as stream:
        headers = _HeaderStream(path, stream)
        with tarfile.open(fileobj=cast(IO[bytes], headers), mode="r:") as tar:
            for member in tar:
                problem = "" if member.isdir() or (member.isreg() and not member.issparse()) else "a link or a device"
                yield _plain_name(member.name + "/" * member.isdir()), member.size + headers.end_header(), problem
                tar.members = []  # type: ignore[attr-defined]  # or all are kept, of which there may be millions
        _require_end(path, stream, headers.last)


def _problem_of(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by another method than deflate"  # zipfile unpacks bzip2 and LZMA without a bound
    kind = entry.external_attr >> 28  # of Unix: 8 is a file, 4 a folder, 0 unknown
    return "" if kind in (0, 4, 8) else "a link or a device"


def _require_all_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise SourceRefused where the record at a zip's end counts other members; zipfile does not read that count.

    A flipped bit in the length of a comment makes the rest of the directory that comment.
    """
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _END_RECORD_BYTES - 0xFFFF))
        end = stream.read()
    start = end.rfind(b"PK\5\6", 0, len(end) - _END_RECORD_BYTES + 4)
    declared, listed = int.from_bytes(end[start + 10 : start + 12], "little"), len(archive.infolist())
    if declared not in (listed & 0xFFFF, 0xFFFF):  # the last stands for a larger one, elsewhere
        raise SourceRefused(f"{path} is damaged: it tells of {declared} members, {listed} are found; get it again")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def _open_unpacked(path: Path) -> IO[bytes]:
    start = _first_bytes(path)
    open_packed: Callable[..., Any] = next(
        (opener for mark, opener in _DECOMPRESSORS.items() if start.startswith(mark)), open
    )
    return open_packed(path, "rb")  # type: ignore[no-any-return]


class _HeaderStream:
    """The stream that tarfile reads headers from, each of them bounded; it keeps the block that was read last."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.seek, self.tell = stream.seek, stream.tell
        self.last = b""
        self._path, self._stream = path, stream
        self._header_bytes = 0

    def end_header(self) -> int:
        """Count the last header as read; returns how many bytes it had beyond those of a usual one."""
        excess, self._header_bytes = max(0, self._header_bytes - _USUAL_HEADER_BYTES), 0
        return excess

    def read(self, size: int) -> bytes:
        """Read as from a file. Raises SourceRefused before a header that is too long is in memory."""
        self._header_bytes += size
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise SourceRefused(
                f"{self._path} has a header of over {_MAX_HEADER_BYTES} bytes, for a name or what else: a bomb"
            )
        self.last = self._stream.read(size)
        return self.last


def _require_end(path: Path, stream: IO[bytes], last: bytes) -> None:
    """Raise SourceRefused where a tar does not end with a block of zeros: tarfile takes a bad header for the end.

    What follows is read too: it holds the checksums of gzip, bzip2 and xz.
    """
    if last != bytes(tarfile.BLOCKSIZE):
        raise SourceRefused(
            f"{path} is damaged or cut short: no header of a member, and no end, at byte {stream.tell() - len(last)} "
            "of what it unpacks to; get it again, or name the unpacked folder"
        )
    padding = 0
    while block := stream.read(_BLOCK_BYTES):
        padding += len(block)
        if block.count(0) != len(block) or padding > _MAX_PADDING_BYTES:
            raise SourceRefused(f"{path} goes on after the end of its tar; unpack all of it, and name the folder")


def _plain_name(name: str) -> str:
    """The name without the ./ that tar writes where the folder was named so; '' is the folder itself."""
    return _CURRENT_FOLDER.sub("", name)


def zip_members(path: Path) -> Iterator[Member]:
    """Name, size and content of each member."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield _plain_name(entry.filename), entry.file_size, partial(_read_zip_member, archive, entry)


def _read_zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The content of a member, read in blocks: a directory can lie about a size, and zipfile unpacks before it cuts."""
    longer_entry = copy(entry)
    longer_entry.file_size += 1
    with archive.open(longer_entry) as stream:
        content = b"".join(iter(partial(stream.read, _BLOCK_BYTES), b""))
    if len(content) != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename!r} unpacks to another size than the {entry.file_size} bytes told")
    return content


def tar_members(path: Path) -> Iterator[Member]:
    """Name, size and content of each member; a content can be read until the iterator goes on."""
    with _open_unpacked(path) as source, tarfile.open(fileobj=source, mode="r:") as tar:
        for member in tar:
            stream = None if member.isdir() else tar.extractfile(member)
            read = stream.read if stream is not None else bytes
            yield _plain_name(member.name + "/" * member.isdir()), member.size, read
            tar.members = []  # type: ignore[attr-defined]  # or every header is kept, of which there may be millions
