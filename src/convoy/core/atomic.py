"""Files and folders that appear whole or not at all: a temporary name beside the target, fsync, rename."""

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # errors of a write carry no file name
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
CANNOT_SWAP = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # an old kernel; NFS and some other file systems
ASIDE_SUFFIX = ".aside"


def sha256_of(path: Path) -> str:
    """The sha256 (hex) of a file, read in blocks. Raises OSError, so FileNotFoundError where there is none."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it replaces `path` in one step, on error nothing is left.

    An OSError names `path`, not the temporary name.
    """
    with _locked_temporary(path, _make_file) as temporary:
        yield temporary
        temporary.chmod(0o644)  # mkstemp gives 0600, which another user's server could not read
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step."""
    with new_file(path) as temporary:
        try:
            temporary.write_bytes(content)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}, {len(content):,} bytes are needed") from None


def to_json(content: Any) -> bytes:
    """JSON that is the same bytes for the same content and that people can read."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as JSON in one step."""
    write_bytes(path, to_json(content))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it takes the place of `path`, on error nothing is left.

    The old folder is removed after that. Raises OSError, which names `path` and not the temporary name: with the old
    folder in its place for a mount point (EBUSY) and for a folder of a container's lower layer (EXDEV), since neither
    can be renamed.
    """
    with _locked_temporary(path, _make_folder) as temporary:
        yield temporary
        temporary.chmod(0o755)
        for entry in temporary.rglob("*"):
            # Whatever the umask: another user's server must be able to read it.
            entry.chmod(0o755 if entry.is_dir() else 0o644)
            sync(entry)
        sync(temporary)
        _move_into_place(temporary, path)
        sync(path.parent)


def _move_into_place(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; what was at `path` gets the name of `new`."""
    if not os.path.lexists(path):
        new.rename(path)
    elif not _swap(new, path):
        aside = path.with_name(f".{path.name}{ASIDE_SUFFIX}")
        path.rename(aside)
        try:
            new.rename(path)
        except OSError:
            aside.rename(path)
            raise
        aside.rename(new)


def _swap(new: Path, path: Path) -> bool:
    """Swap the names of two folders in one step; False, with nothing changed, where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # macOS, musl
        return False
    if renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_SWAP:
        return False
    raise OSError(code, os.strerror(code), str(path))


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _try_to_remove(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()  # an empty folder, which opens no file
    with suppress(OSError):
        _remove(path)


@contextmanager
def _locked_temporary(path: Path, make: Callable[[Path], tuple[int, Path]]) -> Iterator[Path]:
    """A temporary name beside `path`, locked while this process lives; in the end nothing has it any more.

    Leftovers of killed processes are removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        descriptor, temporary = make(path)
        try:
            # Another process may have removed it before it was locked.
            while not (_wait_for_lock(descriptor) and temporary.exists()):
                os.close(descriptor)
                descriptor = -1  # if `make` fails, this number may already be another thread's file
                descriptor, temporary = make(path)
            yield temporary
        finally:
            _try_to_remove(temporary)
            if descriptor >= 0:
                os.close(descriptor)
            _try_to_remove(temporary)  # it may have been the one open file too many
    except OSError as error:
        names = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, (str, Path))]
        is_own = any(part.startswith(f".{path.name}.") for name in names for part in name.parts)
        if is_own or (not names and error.errno in DISK_ERRORS):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _make_file(path: Path) -> tuple[int, Path]:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    return descriptor, Path(name)


def _make_folder(path: Path) -> tuple[int, Path]:
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        return os.open(folder, os.O_RDONLY), folder
    except OSError:
        folder.rmdir()
        raise


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files and folders of `path` whose process is dead: nobody holds their lock.

    A folder that was put aside moves back where nothing took its place.
    """
    aside = path.with_name(f".{path.name}{ASIDE_SUFFIX}")
    if os.path.lexists(aside):
        with suppress(OSError):
            _remove(aside) if os.path.lexists(path) else aside.rename(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[a-z0-9_]' * 8}"):
        with suppress(OSError):  # it is gone, or another process holds it
            descriptor = os.open(leftover, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(leftover)
            finally:
                os.close(descriptor)


def _wait_for_lock(descriptor: int) -> bool:
    """Lock an open file when it is free; always True."""
    with suppress(OSError):  # a file system without locks: then no leftover is removed either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True
