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

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of a write, which does not know the file's name
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # an old kernel; NFS and some others
ASIDE = ".aside"


def sha256_of(path: Path) -> str:
    """The sha256 (hex) of a file, read in blocks. Raises OSError, so FileNotFoundError where there is none."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it replaces `path` in one step, on error nothing is left.

    An OSError names `path`, whose temporary name would tell nobody anything.
    """
    with _beside(path, _make_file) as temporary:
        try:
            yield temporary
            temporary.chmod(0o644)  # mkstemp gives 0600, which another user's server could not read
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


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

    What was there is removed after that. Raises OSError, with the old in its place, for a mount point (EBUSY) and for
    a folder of a container's lower layer (EXDEV), which cannot be renamed.
    """
    with _beside(path, _make_folder) as temporary:
        try:
            yield temporary
            temporary.chmod(0o755)
            for inside in temporary.rglob("*"):
                # Whatever the umask: another user's server must be able to read it.
                inside.chmod(0o755 if inside.is_dir() else 0o644)
                sync(inside)
            sync(temporary)
            _put(temporary, path)
            sync(path.parent)
        finally:
            with suppress(OSError):
                _remove(temporary)


def _put(new: Path, path: Path) -> None:
    """Rename a folder to `path`; what was there has the other's name then."""
    if not os.path.lexists(path):
        new.rename(path)
    elif not _exchange(new, path):
        aside = path.with_name(f".{path.name}{ASIDE}")
        path.rename(aside)
        try:
            new.rename(path)
        except OSError:
            aside.rename(path)
            raise
        aside.rename(new)


def _exchange(new: Path, path: Path) -> bool:
    """Let two folders change their names in one step, or say False: nothing has happened, the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # macOS, musl
        return False
    if renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(path), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(path))


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@contextmanager
def _beside(path: Path, make: Callable[[Path], tuple[int, Path]]) -> Iterator[Path]:
    """A temporary name beside `path`, locked while this process lives; those that a kill left behind are removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        descriptor, temporary = make(path)
        try:
            while not (_locked(descriptor) and temporary.exists()):  # swept between its making and its lock
                os.close(descriptor)
                descriptor = -1  # where `make` fails its number may be another thread's file by now
                descriptor, temporary = make(path)
            yield temporary
        finally:
            if descriptor >= 0:
                os.close(descriptor)
    except OSError as error:
        named = [Path(name).name for name in (error.filename, error.filename2) if isinstance(name, (str, Path))]
        if any(name.startswith(f".{path.name}.") for name in named) or (not named and error.errno in DISK_ERRORS):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _make_file(path: Path) -> tuple[int, Path]:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    return descriptor, Path(name)


def _make_folder(path: Path) -> tuple[int, Path]:
    folder = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.")
    return os.open(folder, os.O_RDONLY), Path(folder)


def _sweep(path: Path) -> None:
    """Remove the temporary files and folders of `path` whose process is dead: nobody holds their lock.

    A folder that was put aside, and then nothing in its place, takes that again.
    """
    aside = path.with_name(f".{path.name}{ASIDE}")
    if os.path.lexists(aside):
        with suppress(OSError):
            _remove(aside) if os.path.lexists(path) else aside.rename(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[a-z0-9_]' * 8}"):
        with suppress(OSError):  # gone, or another's
            descriptor = os.open(leftover, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(leftover)
            finally:
                os.close(descriptor)


def _locked(descriptor: int) -> bool:
    with suppress(OSError):  # a file system without locks: then nothing is swept either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True
