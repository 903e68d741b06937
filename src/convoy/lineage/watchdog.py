"""Waits for the end of a DVC, however it ends, and mends its torn records: a process that outlives it.

A stage starts it (convoy.core.stage), once per DVC. It does not run where DVC is killed before its first stage, or the
whole container or machine ends; `python -m convoy verify --mend`, which `make repro` runs first, mends the same.
"""

import sys
from contextlib import suppress
from pathlib import Path

import psutil

from convoy.core import locks

LOCKS = Path(".run/stages")


def watch(pid: int) -> None:
    """Wait for the end of the DVC that is process `pid` or an ancestor of it, and mend the records that it leaves torn.

    Does nothing where another process waits for it already. psutil waits by pidfd on Linux and by kqueue on macOS,
    without delay; elsewhere it polls every 40 ms.
    """
    dvc = _find_dvc(pid)
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


def _find_dvc(pid: int) -> psutil.Process | None:
    """None where it has ended already: `pid` is then gone, or that of init, which adopts orphans."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for candidate in [process, *process.parents()]:  # a shell may be between them
            names = [Path(word).name for word in candidate.cmdline()]
            # Not every command line with dvc is DVC: init may be `tini -- dvc repro`.
            if "dvc" in names and names[0].startswith(("dvc", "python")):
                return candidate
    return None


if __name__ == "__main__":
    watch(int(sys.argv[1]))
