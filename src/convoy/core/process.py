"""This process and others: the cores it may use, who it is, whether one still lives, and how it reports progress."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PID, HOST, _BORN = "convoy.pid", "convoy.host", "convoy.process_started"
_SAME_START_S = 5  # psutil reckons the start of a process from the clock, which may have been set since

Say = Callable[[str], None]  # takes one line, without its end


def usable_cores() -> int:
    """How many cores this process is bound to, all of the machine's where the system knows no such bound."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_tags(pid: int | None = None) -> dict[str, str]:
    """What tells a process, this one without a `pid`, from all others: host, number, and when it began.

    Numbers are used again; 0.0 stands for the beginning of a process that had ended by then.
    """
    pid = os.getpid() if pid is None else pid
    return {HOST: socket.gethostname(), PID: str(pid), _BORN: f"{began_s(pid):.1f}"}


def is_alive(tags: dict[str, str]) -> bool:
    """Whether the process that these tags name runs, on this machine; tags that name none are of a dead one."""
    try:
        return is_same(int(tags[PID]), float(tags[_BORN]))
    except (KeyError, ValueError):
        return False


def is_same(pid: int, began: float) -> bool:
    """Whether the process that has this number now is the one that began then, in seconds of the clock."""
    now_s = began_s(pid)
    return now_s > 0 and abs(now_s - began) < _SAME_START_S


def began_s(pid: int) -> float:
    """When a process began, in seconds of the clock; 0 for one that has ended."""
    import psutil

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0


def runs_here(pid: int, module: str) -> bool:
    """Whether that process runs this module in this folder: not another, in a container of its own or long after."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return module in process.cmdline() and Path(process.cwd()) == Path.cwd()
    return False


def exists(pid: int) -> bool:
    """Whether a process has this number, were it another user's, or one that has ended and is not waited for yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
