"""Python loads this where its folder is on PYTHONPATH: the process then dies at its N-th write, or finds a full disk.

As SQLite tests itself (sqlite.org/testing.html, 3.2 and 3.3), from outside: an audit hook sees what is opened for
writing, renamed or removed below the current folder by any Python code, DVC's and Lightning's too, before it happens.
CONVOY_FAULT_IN is a word of the command line, CONVOY_FAULT_AT the N, CONVOY_FAULT `kill` or `full`. The file
CONVOY_FAULT_LOG tells the step at which it happened.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.symlink", "os.link")
WRITING = os.O_WRONLY | os.O_RDWR
ROOT = os.getcwd()


class Counter:
    """Counts the steps of this process, and strikes at one of them."""

    def __init__(self, at: int, how: str) -> None:
        self.left, self.how, self.struck = at, how, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook. A file that is opened to be written anew counts twice: whole, and torn in the middle."""
        if self.struck or event not in STEPS or not _is_below_root(arguments[0]):
            return
        path, opens = os.fsdecode(arguments[0]), event == "open"
        if opens and not arguments[2] & WRITING:
            return
        self._count(event, path)
        if opens and arguments[2] & os.O_TRUNC and self.how == "kill" and os.path.isfile(path):
            if self.left == 1:
                os.truncate(path, os.path.getsize(path) // 2)
            self._count("torn", path)

    def _count(self, event: str, path: str) -> None:
        self.left -= 1
        full = self.how == "full"
        if (self.left == 0 and not full) or (self.left <= 0 and event in ("open", "os.mkdir")):
            self.struck = not full
            _log(event, path)
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            os.kill(os.getpid(), signal.SIGKILL)


def _log(event: str, path: str) -> None:
    descriptor = os.open(os.environ["CONVOY_FAULT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{event} {os.path.relpath(path, ROOT)}\n".encode())
    os.close(descriptor)


def _is_below_root(path: Any) -> bool:
    if not isinstance(path, (str, bytes, Path)):
        return False
    absolute = os.path.abspath(os.fsdecode(path))
    return absolute.startswith(ROOT + os.sep) and "__pycache__" not in absolute


if os.environ.get("CONVOY_FAULT_IN") in sys.orig_argv:
    sys.addaudithook(Counter(int(os.environ["CONVOY_FAULT_AT"]), os.environ["CONVOY_FAULT"]))
