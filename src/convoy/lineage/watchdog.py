"""The end of a DVC, however it ends -> its torn records mended, by a process that outlives it: nobody else is there.

A stage starts it (convoy.stage), once per DVC. A kill of DVC before its first stage has started, of the whole container
or of the machine leaves none; `python -m convoy verify --mend`, which `make repro` runs first, mends the same.
"""

import sys
from contextlib import suppress
from pathlib import Path

import psutil

from convoy.core import locks

LOCKS = Path(".run/stages")


def watch(pid: int) -> None:
    """Wait for the end of the DVC that is process `pid` or an ancestor of it, and mend what it leaves torn here.

    Nothing where another one waits for it already. psutil waits by pidfd on Linux and by kqueue on macOS, which tell
    at once; elsewhere it looks every 40 ms.
    """
    dvc = _dvc(pid)
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = LOCKS / f"dvc-{dvc.pid if dvc else pid}.lock"
    with locks.hold(lock) as is_first:
        if not is_first:
            return
        from convoy.lineage import lock_repair  # 0.3 s, not again for each stage

        try:
            if dvc:
                dvc.wait()
            list(lock_repair.torn_records(Path(), mend=True))
        finally:
            lock.unlink(missing_ok=True)


def _dvc(pid: int) -> psutil.Process | None:
    """None where it has died before this looks: `pid` is gone then, or that of init, which takes orphans over."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.parents()]:  # a shell may lie between
            names = [Path(word).name for word in each.cmdline()]
            # Not all that name it are DVC: init may be `tini -- dvc repro`.
            if "dvc" in names and names[0].startswith(("dvc", "python")):
                return each
    return None


if __name__ == "__main__":
    watch(int(sys.argv[1]))
