"""How a stage runs as a process: alone, no longer than its DVC, and with one clear line where it cannot go on."""

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from convoy.core import locks, process
from convoy.core.params import ParamsInvalid

LOCKS = Path(".run/stages")
RWLOCK = Path(".dvc/tmp/rwlock")  # where DVC writes its pid beside a stage's outs, before it starts the stage
PATIENCE_S = 5.0  # for another run of the stage, which may be at its end
PR_SET_PDEATHSIG = 1
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of several processes that train together the first holds the lock
AGAIN = "then run `dvc repro` again"
REMEDIES = {
    errno.ENOSPC: f"free some space, {AGAIN}",
    errno.EDQUOT: f"free some of your quota, {AGAIN}",
    errno.EFBIG: f"raise the limit of a file's size (`ulimit -f`), {AGAIN}",
    errno.EROFS: f"mount it writable, {AGAIN}",
    errno.EACCES: f"give yourself the right to it (`ls -ld` says who has it), {AGAIN}",
    errno.EPERM: f"give yourself the right to it (`ls -ld`, `lsattr -d`), {AGAIN}",
    errno.EMFILE: f"raise the limit of open files (`ulimit -n`), {AGAIN}",
    errno.ENFILE: f"raise the system's limit of open files (`sysctl fs.file-max`), {AGAIN}",
    errno.EBUSY: f"it is a mount point, which cannot be replaced: mount the folder above it, {AGAIN}",
    errno.EXDEV: f"it lies in a lower layer of the container's disk: remove it, {AGAIN}",
    errno.ENOENT: "run `dvc repro`, which makes what comes before",
}


class StageRunning(RuntimeError):
    """The same stage is being run by another process."""


def run(main: Callable[..., None], *arguments: str, refusals: tuple[type[Exception], ...] = ()) -> None:
    """Be the process of a stage: `main(*arguments)`, or one line on standard error and exit code 1.

    That line is for what a person can mend: invalid params, a full disk, missing rights, another run, and what
    `refusals` names. Anything else is a fault of ours and keeps its traceback.
    """
    module = Path(sys.argv[0]).stem
    name = f"{module}@{'-'.join(arguments)}" if arguments else module  # as DVC calls it
    _watch_dvc()  # first: also a DVC that is dead by now may have left torn records
    if "DVC_STAGE" in os.environ:
        end_with_parent()  # which is DVC: `exec` in dvc.yaml leaves no shell between them
        if _is_orphan():
            sys.exit(f"{name}: its DVC was killed before it began; run `dvc repro` again")
    try:
        with _alone(name, module):
            main(*arguments)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        sys.exit(f"{name}: {error.filename or 'a file'}: {error.strerror}; {REMEDIES[error.errno]}")
    except Exception as error:
        if not isinstance(error, (ParamsInvalid, StageRunning, *refusals)):
            raise
        sys.exit(f"{name}: {error}")


def end_with_parent(pid: int | None = None) -> None:
    """Where the parent is killed, end too, as if by `kill`: nobody would take what this makes. On Linux alone.

    `pid` is the parent's, where it is known: it may have died before this call, of which no signal tells.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if pid not in (None, os.getppid()):
            os.kill(os.getpid(), signal.SIGTERM)


def _is_orphan() -> bool:
    """Whether the DVC that started this is dead: no ancestor is among those that hold DVC's lock of outs.

    The parent's pid alone does not say so: DVC may be a container's pid 1, and a subreaper may have adopted this.
    False where that lock is missing or is just being written, and for processes that a launcher may have started.
    """
    if any(rank in os.environ for rank in RANKS):
        return False
    with suppress(FileNotFoundError, ValueError, psutil.Error):
        holders = {holder["pid"] for holder in json.loads(RWLOCK.read_bytes()).get("write", {}).values()}
        return bool(holders) and holders.isdisjoint(each.pid for each in psutil.Process().parents())
    return False


def _watch_dvc() -> None:
    """Start what mends the records of this DVC where it is killed, in a session of its own: it outlives both.

    A machine that cannot start it still runs the stage, which needs it for nothing.
    """
    if "DVC_STAGE" not in os.environ or _follows():
        return
    null = subprocess.DEVNULL
    with suppress(OSError):
        subprocess.Popen(
            [sys.executable, "-m", "convoy.lineage.watchdog", str(os.getppid())],
            stdin=null,
            stdout=null,
            stderr=null,
            start_new_session=True,
        )


def _follows() -> bool:
    """Whether this is one of several processes that train together, and not the first."""
    return any(os.environ.get(rank, "0") != "0" for rank in RANKS)


@contextmanager
def _alone(name: str, module: str) -> Iterator[None]:
    """Hold the stage's lock, which ends with the process however it ends.

    Raises StageRunning where another process has held it for PATIENCE_S.
    """
    if _follows():
        yield
        return
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / f"{name}.lock").open("a+") as stream:
        _take(stream, name, module)
        stream.truncate(0)
        stream.write(f"{os.getpid()} {os.environ.get('DVC_STAGE', '')}")
        stream.flush()
        yield


def _take(stream: IO[str], name: str, module: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if locks.take(stream):
            return
        stream.seek(0)
        pid, _, of_dvc = stream.read().partition(" ")
        # DVC lets no two living ones of its kind run a stage at once: that one's DVC is dead.
        if of_dvc and "DVC_STAGE" in os.environ and process.runs_here(int(pid), f"pipelines.{module}"):
            os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise StageRunning(f"another run of it is going on, pid {pid}; wait for its end, or end it")
        time.sleep(0.05)
