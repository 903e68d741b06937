"""Processes: the cores this one may use, how to identify one, whether it still runs, and how it reports progress."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PID, HOST, _STARTED = "convoy.pid", "convoy.host", "convoy.process_started"
_START_TOLERANCE_S = 5  # psutil computes the start from the clock, which may have been set since

Say = Callable[[str], None]  # takes one line, without its end


def usable_cores() -> int:
    """How many cores this process may use: all of the machine where the system has no such limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_tags(pid: int | None = None) -> dict[str, str]:
    """What identifies a process, this one without a `pid`: host, number, and when it began.

    The system uses numbers again. A process that has already ended began at 0.0.
    """
    pid = os.getpid() if pid is None else pid
    return {HOST: socket.gethostname(), PID: str(pid), _STARTED: f"{_began_s(pid):.1f}"}


def is_alive(tags: dict[str, str]) -> bool:
    """Whether the process that these tags name runs on this machine; False for tags that name none."""
    try:
        started_s = _began_s(int(tags[PID]))
        return started_s > 0 and abs(started_s - float(tags[_STARTED])) < _START_TOLERANCE_S
    except (KeyError, ValueError):
        return False


def _began_s(pid: int) -> float:
    """When a process began, in seconds of the clock; 0 for one that has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0


def runs_here(pid: int, module: str) -> bool:
    """Whether this process runs this module in this folder; another process may have the same number."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return module in process.cmdline() and Path(process.cwd()) == Path.cwd()
    return False


def exists(pid: int) -> bool:
    """Whether a process has this number, also another user's, or one that has ended but is not reaped yet."""
    import psutil

    return bool(psutil.pid_exists(pid))
