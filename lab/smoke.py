"""The whole laboratory on few examples in a folder of its own: minutes, everything runs, nothing is learnt well."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from convoy.params import ParamsInvalid
from convoy.running import workspace
from lab.layout import PARAMS

OVERRIDES = Path("lab/smoke.yaml")


def run(folder: Path, say: Callable[[str], None]) -> int:
    """Lay `folder` with demo.yaml and lab/smoke.yaml, prepare, measure, publish there; the exit code.

    What an earlier run left there stays and is not done again.
    """
    try:
        workspace.lay(folder, Path("demo.yaml"))
        (folder / PARAMS).write_text(smaller(PARAMS, OVERRIDES))
    except (workspace.WorkspaceRefused, ParamsInvalid) as error:
        say(str(error))
        return 1
    say(f"few examples, short trainings, in {folder}: nothing outside it changes, and no figure means anything")
    for words in (["dvc", "repro", "lab/dvc.yaml"], ["lab", "publish"]):
        status = subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, env=workspace.environment(folder), check=False
        ).returncode
        if status:
            return status
    say(f"{folder / 'reports/compare/index.html'} has the page")
    return 0


def smaller(params: Path, overrides: Path) -> str:
    """lab/params.yaml with the values of `overrides` in their place. Raises ParamsInvalid for a key that it lacks."""
    known, wanted = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (params, overrides))
    return yaml.safe_dump(workspace.merge(known, wanted, overrides), sort_keys=False, allow_unicode=True)
