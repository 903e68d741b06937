"""Child processes: each ends with this process, and then with all that it has started."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil

ENDED_WITHIN_S = 20.0
REAPED_WITHIN_S = 5.0  # after SIGKILL
# Beside the command waits what sends it SIGTERM once the pipe of its standard input is closed: this process is gone.
_TIED = '( { while read -r line; do :; done; kill "$$"; } <&3 >/dev/null 2>&1 & ) 3<&0; exec "$@" </dev/null'


class Child(subprocess.Popen[bytes]):
    """A command in a session of its own, so that Ctrl-C reaches this process alone; as a context it ends on exit.

    It ends with this process, even a killed one. Output goes to `log`, or where the options of Popen say.
    """

    def __init__(self, command: Sequence[str], log: Path | None = None, **options: Any) -> None:
        self.log = log
        self._started: set[psutil.Process] = set()
        with log.open("wb") if log else nullcontext() as output:
            outputs = {"stdout": output, "stderr": subprocess.STDOUT} if log else {}
            words = ["/bin/sh", "-c", _TIED, "sh", *command]
            super().__init__(words, stdin=subprocess.PIPE, start_new_session=True, **{**outputs, **options})

    def __exit__(self, *_: object) -> None:
        self.end()

    def is_running(self) -> bool:
        """Whether it has not ended. Notes what it has started: should it be killed, `end` finds the rest by that."""
        self._started.update(descendants(self.pid))
        return self.poll() is None

    def end(self, within_s: float = ENDED_WITHIN_S) -> None:
        """Ask it to end, by SIGTERM; what is left of it and of what it has started after `within_s` is killed."""
        if self.is_running():
            self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.wait(within_s)
        kill(self._started, REAPED_WITHIN_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                stream.close()

    def last_line(self) -> str:
        """The last line of its log; empty without one."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log else []
        return lines[-1] if lines else ""


def end_all(children: Iterable[Child], within_s: float = ENDED_WITHIN_S) -> None:
    """End them together."""
    children = list(children)
    deadline_s = time.monotonic() + within_s
    for child in children:
        if child.is_running():
            child.terminate()
    for child in children:
        child.end(max(0.0, deadline_s - time.monotonic()))


def descendants(pid: int) -> list[psutil.Process]:
    """The children of a process, theirs, and so on; empty where it has ended."""
    with suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def kill(processes: Iterable[psutil.Process], within_s: float = 0.0) -> None:
    """Kill those that still run and wait up to `within_s` for their end; a process with a reused number is spared."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if within_s:
        psutil.wait_procs(processes, timeout=within_s)
