"""How a stage runs as a process: one run at a time, never longer than its DVC, one clear line where it cannot go on."""

import ctypes
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from convoy.core import locks, process
from convoy.core.params import ParamsInvalid
from convoy.core.tasks import TaskUnknown

LOCKS = Path(".run/stages")
RWLOCK = Path(".dvc/tmp/rwlock")  # DVC writes its pid here, with a stage's outs, before it starts the stage
LOCK_WAIT_S = 5.0  # another run of the stage may be about to end
PR_SET_PDEATHSIG = 1
# When several processes train together, the first holds the lock.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
THEN_RERUN = "then run `dvc repro` again"
REMEDIES = {
    errno.ENOSPC: f"free some space, {THEN_RERUN}",
    errno.EDQUOT: f"free some of your quota, {THEN_RERUN}",
    errno.EFBIG: f"raise the limit of a file's size (`ulimit -f`), {THEN_RERUN}",
    errno.EROFS: f"mount it writable, {THEN_RERUN}",
    errno.EACCES: f"give yourself the right to it (`ls -ld` says who has it), {THEN_RERUN}",
    errno.EPERM: f"give yourself the right to it (`ls -ld`, `lsattr -d`), {THEN_RERUN}",
    errno.EMFILE: f"raise the limit of open files (`ulimit -n`), {THEN_RERUN}",
    errno.ENFILE: f"raise the system's limit of open files (`sysctl fs.file-max`), {THEN_RERUN}",
    errno.EBUSY: f"it is a mount point, which cannot be replaced: mount the folder above it, {THEN_RERUN}",
    errno.EXDEV: f"it lies in a lower layer of the container's disk: remove it, {THEN_RERUN}",
    errno.ENOENT: "run `dvc repro`, which makes what comes before",
}


class StageRunning(RuntimeError):
    """The same stage is being run by another process."""


def run(main: Callable[..., None], *arguments: str, refusals: tuple[type[Exception], ...] = ()) -> None:
    """Run `main(*arguments)` as the process of a stage; on failure one line on standard error and exit code 1.

    That line is for what a person can mend: invalid params, a full disk, missing rights, another run, and the errors
    in `refusals`. Anything else is a bug and keeps its traceback.
    """
    module = Path(sys.argv[0]).stem
    name = "@".join([module, *arguments])  # as DVC calls it
    if "DVC_STAGE" in os.environ:
        end_with_parent()  # which is DVC: `exec` in dvc.yaml leaves no shell between them
        if _is_orphan():
            sys.exit(f"{name}: its DVC was killed before it began; run `dvc repro` again")
    try:
        with _hold_stage_lock(name, module):
            main(*arguments)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        sys.exit(f"{name}: {error.filename or 'a file'}: {error.strerror}; {REMEDIES[error.errno]}")
    except Exception as error:
        if not isinstance(error, (ParamsInvalid, StageRunning, TaskUnknown, *refusals)):
            raise
        sys.exit(f"{name}: {error}")


def end_with_parent(pid: int | None = None) -> None:
    """End as if by `kill` when the parent is killed: nobody would use the result. On Linux only.

    `pid` is the parent's, if the caller knows it: a parent that died before this call sends no signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if pid not in (None, os.getppid()):
            os.kill(os.getpid(), signal.SIGTERM)


def _is_orphan() -> bool:
    """Whether the DVC that started this process is dead: no ancestor holds DVC's lock of outs.

    The parent's pid alone does not say so: DVC may be a container's pid 1, and a subreaper may have adopted this
    process. False where that lock is missing or is just being written, and for processes that a launcher may have
    started.
    """
    if any(rank in os.environ for rank in RANK_VARIABLES):
        return False
    with suppress(FileNotFoundError, ValueError, psutil.Error):
        holders = {holder["pid"] for holder in json.loads(RWLOCK.read_bytes()).get("write", {}).values()}
        return bool(holders) and holders.isdisjoint(ancestor.pid for ancestor in psutil.Process().parents())
    return False


def _is_follower() -> bool:
    """Whether this process is one of several that train together, and not the first."""
    return any(os.environ.get(rank, "0") != "0" for rank in RANK_VARIABLES)


@contextmanager
def _hold_stage_lock(name: str, module: str) -> Iterator[None]:
    """Hold the stage's lock; it is free again when the process ends, however it ends.

    Raises StageRunning where another process still holds it after LOCK_WAIT_S.
    """
    if _is_follower():
        yield
        return
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / f"{name}.lock").open("a+") as stream:
        _wait_for_lock(stream, name, module)
        stream.truncate(0)
        stream.write(f"{os.getpid()} {os.environ.get('DVC_STAGE', '')}")
        stream.flush()
        yield


def _wait_for_lock(stream: IO[str], name: str, module: str) -> None:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        if locks.take(stream):
            return
        stream.seek(0)
        pid, _, dvc_stage = stream.read().partition(" ")
        # Two living DVCs never run one stage at once: the DVC of that run is dead.
        if dvc_stage and "DVC_STAGE" in os.environ and process.runs_here(int(pid), f"pipelines.{module}"):
            os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise StageRunning(f"another run of it is going on, pid {pid}; wait for its end, or end it")
        time.sleep(0.05)
