"""Lock files: each held by one process at a time, and free again when that process ends, however it ends.

`filelock.lock_descriptor` is the system's lock (flock) of an open file. `FileLock`, its lock of a path, is not used: it
makes missing folders, and stage.py reads and writes the content of the file. One lock is taken elsewhere, in atomic.py:
it locks a data file that is open anyway, waits in the system's queue instead of polling every 50 ms, and must not wait
for ever where a file system refuses all locks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

from convoy.core.paths import DEPLOYED
from convoy.core.process import Say


def take(stream: IO[str]) -> bool:
    """Lock a file that is open for writing until it is closed; False, at once, where another opening of it is locked.

    A child made by a fork alone shares the lock; one that runs another program does not. Raises OSError where the file
    system has no locks.
    """
    return lock_descriptor(stream.fileno(), blocking=False)


@contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold a file's lock, and make the file where it is missing; False where another process holds it.

    Raises OSError as `take` does, and FileNotFoundError where the folder is missing.
    """
    with path.open("a") as stream:
        yield take(stream)


@contextmanager
def hold_when_free(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a file's lock as `hold` does, after whoever holds it now; `on_wait` is called where somebody does."""
    with path.open("a") as stream:
        if not take(stream):
            if on_wait:
                on_wait()
            lock_descriptor(stream.fileno())
        yield


@contextmanager
def hold_deployed(say: Say) -> Iterator[None]:
    """Hold deployed/, and with it MLflow's store, for this process alone; `say` gets one line where another has it."""
    DEPLOYED.mkdir(parents=True, exist_ok=True)
    line = "waiting for another publish, promote or rollback to end"
    with hold_when_free(DEPLOYED / ".lock", lambda: say(line)):
        yield


@contextmanager
def hold_deployed_at_once() -> Iterator[bool]:
    """Hold deployed/ as hold_deployed() does, or, at once, give False where another process has it."""
    DEPLOYED.mkdir(parents=True, exist_ok=True)
    with hold(DEPLOYED / ".lock") as free:
        yield free
