"""Child processes: the descendants of a process, and their end."""

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import psutil


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


def end(processes: Sequence["subprocess.Popen[Any]"], within_s: float) -> None:
    """Ask all to end (SIGTERM), and kill those that are not done after `within_s` each."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
