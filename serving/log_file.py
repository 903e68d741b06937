"""Lines -> the end of a file that several workers share; private to its owner, and rotated at a size."""

import fcntl
import os
from itertools import pairwise
from pathlib import Path

from convoy.core.request_log_files import older

# In place of a closed descriptor's number, which the next file or socket of any thread may have.
CLOSED = -1


class LogFile:
    """A file that becomes FILE.1 when it is full, as FILE.1 becomes FILE.2, and so on; the oldest is deleted."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path, self._max_bytes, self._files = path, max_bytes, files

    def prove(self) -> None:
        """Make the file where it is missing. Raises OSError where lines could not be added."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(self._open())

    def append(self, lines: bytes) -> None:
        """Add whole lines, in one piece even beside other processes. Raises OSError."""
        descriptor = self._open()
        try:
            length = os.fstat(descriptor).st_size
            if length and length + len(lines) > self._max_bytes:
                self._rotate()
                full, descriptor = descriptor, CLOSED
                os.close(full)
                descriptor, length = self._open(), 0
            if length and os.pread(descriptor, 1, length - 1) != b"\n":
                lines = b"\n" + lines  # a kill or a full disk has left half a line there
            while lines:
                lines = lines[os.write(descriptor, lines) :]
        finally:
            if descriptor != CLOSED:
                os.close(descriptor)

    def _open(self) -> int:
        """The file at `path`, locked until it is closed; opened again where it was rotated while this waited."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self.path.stat().st_ino == os.fstat(descriptor).st_ino:
                    os.fchmod(descriptor, 0o600)  # one that was there before may have been open to all
                    return descriptor
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _rotate(self) -> None:
        names = [self.path, *(older(self.path, number) for number in range(1, self._files))]
        for newer, next_older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(next_older)
        if len(names) == 1:
            self.path.unlink()
