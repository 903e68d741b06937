"""DVC's own records -> those that a kill has torn are put aside, so that the next `dvc repro` goes on.

DVC writes dvc.lock and .dvc/tmp/rwlock in place, so that a kill there leaves half of one, at which it then ends
(treeverse/dvc #7615); no setting of its own avoids that.
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
    """Say of each torn record that it is; with `mend` the next DVC finds none, or the committed one, in its place.

    Both are done under DVC's own locks, so that a record that a living DVC is just writing is none of them. Raises
    dvc.lock.LockError where another DVC holds one for more than 3 s.
    """
    with make_lock(str(root / f"{RWLOCK}.lock")):
        if not _is_json(root / RWLOCK):
            yield f"{RWLOCK} is torn by a kill"
            if mend:
                (root / RWLOCK).unlink()
    if not _refusal(root / LOCK):  # most often; that takes 0.3 s, in which nobody need wait
        return
    with make_lock(str(root / TEMPORARY / "lock")):
        refusal = _refusal(root / LOCK)
        if refusal:
            yield f"{LOCK} is torn by a kill ({refusal})"
            if mend:
                _renew(root)


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def _refusal(lock: Path) -> str:
    """What DVC says where it cannot read this dvc.lock; nothing where it can."""
    try:
        strictyaml.load(str(lock), COMPILED_LOCKFILE_SCHEMA)
    except FileNotFoundError:
        pass
    except DvcException as error:
        return str(error)
    return ""


def _renew(root: Path) -> None:
    """The committed dvc.lock, or none: what has been run since then DVC finds in its run cache."""
    aside = root / DAMAGED / LOCK
    aside.parent.mkdir(parents=True, exist_ok=True)
    (root / LOCK).replace(aside)
    committed = subprocess.run(["git", "show", f"HEAD:./{LOCK}"], cwd=root, capture_output=True, check=False)
    if committed.returncode == 0:
        atomic.write_bytes(root / LOCK, committed.stdout)
