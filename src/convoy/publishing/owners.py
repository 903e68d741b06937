"""A process -> the tags by which a run says who writes it; such tags -> whether that process still lives"""

import os
import socket

import psutil

PID, HOST, _BORN = "convoy.pid", "convoy.host", "convoy.process_started"
_SAME_START_S = 5  # psutil reckons the start of a process from the clock, which may have been set since


def process_tags(pid: int | None = None) -> dict[str, str]:
    """What tells a process, this one without a `pid`, from all others: host, number, and when it began.

    Numbers are used again; 0.0 stands for the beginning of a process that had ended by then.
    """
    pid = os.getpid() if pid is None else pid
    return {HOST: socket.gethostname(), PID: str(pid), _BORN: f"{_born_s(pid):.1f}"}


def is_alive(tags: dict[str, str]) -> bool:
    """Whether the process that these tags name runs, on this machine; tags that name none are of a dead one."""
    try:
        born_s = _born_s(int(tags[PID]))
        return born_s > 0 and abs(born_s - float(tags[_BORN])) < _SAME_START_S
    except (KeyError, ValueError):
        return False


def _born_s(pid: int) -> float:
    """When a process began, in seconds of the clock; 0 for one that has ended."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0
