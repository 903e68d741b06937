"""A DVC that begins to plan -> no record in its way that a kill has torn.

networkx calls this by the entry point in pyproject.toml, in every process that imports it. `dvc repro` is one of them,
`dvc repro -s` and `dvc status` are not. dvc.lock is not looked at: DVC writes it only where a stage has run, and then
convoy.watchdog is there.
"""

import sys
from pathlib import Path
from typing import Any


def prepare_dvc() -> dict[str, Any]:
    """Put a torn record aside and say so, in a process of DVC's; networkx is told of no algorithms.

    Raises dvc.lock.LockError where another DVC holds the record for more than 3 s; networkx makes a warning of it.
    """
    root = _root()
    if root and "dvc" in (Path(word).name for word in sys.orig_argv):
        from convoy import records  # which DVC has imported most of

        for record in records.torn_rwlock(root, mend=True):
            print(f"{record}, put aside", file=sys.stderr)
    return {}


def _root() -> Path | None:
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc/tmp/rwlock").exists()), None)
