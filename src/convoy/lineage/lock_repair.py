"""Puts aside the records of DVC that a kill has torn, so that the next `dvc repro` continues.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. A kill during that leaves half a file, and the next DVC fails on it
(treeverse/dvc #7615); no setting of DVC avoids that.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import make_lock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils import strictyaml

from convoy.core import atomic

LOCK, TEMPORARY = Path("dvc.lock"), Path(".dvc/tmp")
RWLOCK = TEMPORARY / "rwlock"
DAMAGED = Path(".run/damaged")


def torn_records(root: Path, mend: bool) -> Iterator[str]:
    """Yield a line for each torn record; with `mend` it is removed, or replaced by the committed one.

    Reads and repairs under DVC's own locks, so that a record that a running DVC is writing is not reported. Raises
    dvc.lock.LockError where another DVC holds one for more than 3 s.
    """
    with make_lock(str(root / f"{RWLOCK}.lock")):
        if not _is_json(root / RWLOCK):
            yield f"{RWLOCK} is torn by a kill"
            if mend:
                (root / RWLOCK).unlink()
    if not _parse_error(root / LOCK):  # the usual case: 0.3 s, without the lock
        return
    with make_lock(str(root / TEMPORARY / "lock")):
        parse_error = _parse_error(root / LOCK)
        if parse_error:
            yield f"{LOCK} is torn by a kill ({parse_error})"
            if mend:
                _restore_committed(root)


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def _parse_error(lock: Path) -> str:
    """DVC's error where it cannot read this dvc.lock; empty where it can."""
    try:
        strictyaml.load(str(lock), COMPILED_LOCKFILE_SCHEMA)
    except FileNotFoundError:
        pass
    except DvcException as error:
        return str(error)
    return ""


def _restore_committed(root: Path) -> None:
    """Restore the committed dvc.lock, or leave none: DVC finds later runs in its run cache."""
    damaged = root / DAMAGED / LOCK
    damaged.parent.mkdir(parents=True, exist_ok=True)
    (root / LOCK).replace(damaged)
    committed = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], cwd=root, capture_output=True, check=False)
    if committed.returncode == 0:
        atomic.write_bytes(root / LOCK, committed.stdout)
