"""The working tree -> a copy in a folder of its own, with other params, where a whole pipeline runs and serves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from convoy.core.params import ParamsInvalid

# What a run in the copy makes itself; taking the original's would tell DVC that it is done.
_LOCK, _REPORTS = "dvc.lock", "reports"  # the laboratory has a dvc.lock of its own
# Settings that would lead the copy back to the original's MLflow and models.
_LEFT_BEHIND = ("MLFLOW_TRACKING_URI", "CONVOY_DEPLOYED", "DVC_ROOT", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")


class WorkspaceRefused(RuntimeError):
    """A folder that cannot become a workspace."""


def create(folder: Path, overrides: Path | None = None, source: Path = Path()) -> None:
    """Copy the working tree of `source`, edits included, into `folder` as a git repository of its own.

    `overrides` is a YAML file that is merged into params.yaml. What a run left in `folder` (data, DVC's cache, models)
    stays, so that the next one is quick. Raises WorkspaceRefused, or ParamsInvalid for a key that params.yaml lacks.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / ".git").is_dir():
        raise WorkspaceRefused(f"{folder} is not empty and no workspace; name another folder, or remove it")
    if not (source / ".git").exists():
        raise WorkspaceRefused(f"{source.absolute()} is no git repository, which says what belongs to it; clone Convoy")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").is_dir():
        _git(folder, "init", "--quiet")
    names = [name for name in _listed(source, "--cached", "--others", "--exclude-standard") if _belongs(source, name)]
    for gone in set(_listed(folder, "--cached")) - set(names):
        (folder / gone).unlink(missing_ok=True)
    for name in names:
        _copy(source / name, folder / name)
    if overrides is not None:
        _override(folder / "params.yaml", overrides)
    _commit(folder, names)


def environment(folder: Path) -> dict[str, str]:
    """The environment in which the code of the copy runs, with this Python and everything installed beside it."""
    root = folder.absolute()
    return {**environment_without_code(), "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}


def environment_without_code() -> dict[str, str]:
    """The environment of a tool that works on the copy and must not import from it; start it with `python -P`."""
    kept = {name: value for name, value in os.environ.items() if name not in (*_LEFT_BEHIND, "PYTHONPATH")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def merge_params(params: dict[str, Any], overrides: dict[str, Any], path: Path, prefix: str = "") -> dict[str, Any]:
    """Params with the leaves of `overrides` in their place. Raises ParamsInvalid for a key that params lacks."""
    merged = dict(params)
    for key, value in overrides.items():
        name = f"{prefix}{key}"
        if key not in params:
            raise ParamsInvalid(f"{path}: {name} is not a key of params.yaml; remove it or correct its spelling")
        if isinstance(params[key], dict) != isinstance(value, dict):
            raise ParamsInvalid(f"{path}: {name} is {value!r}, params.yaml has {params[key]!r}; give the same kind")
        merged[key] = merge_params(params[key], value, path, f"{name}.") if isinstance(value, dict) else value
    return merged


def _belongs(source: Path, name: str) -> bool:
    path = Path(name)
    return path.name != _LOCK and path.parts[0] != _REPORTS and (source / path).is_file()


def _copy(original: Path, copy: Path) -> None:
    """Files that are the same already are left alone: DVC looks at their times before it looks at their content."""
    if copy.is_file() and copy.read_bytes() == original.read_bytes():
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(original, copy)


def _override(params: Path, overrides: Path) -> None:
    known = yaml.safe_load(params.read_text(encoding="utf-8"))
    wanted = yaml.safe_load(overrides.read_text(encoding="utf-8")) or {}
    params.write_text(yaml.safe_dump(merge_params(known, wanted, overrides), sort_keys=False, allow_unicode=True))


def _commit(folder: Path, names: list[str]) -> None:
    _git(folder, "add", "--all", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", stdin="\0".join(names))
    _git(folder, "add", "--update")
    if _git(folder, "status", "--porcelain", "--untracked-files=no"):
        identity = ["-c", "user.name=Convoy", "-c", "user.email=convoy@localhost"]
        quiet = ["-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
        _git(folder, *identity, *quiet, "commit", "--quiet", "--message", "The working tree as it was laid")


def _listed(repository: Path, *which: str) -> list[str]:
    return [name for name in _git(repository, "ls-files", "-z", *which).split("\0") if name]


def _git(repository: Path, *arguments: str, stdin: str = "") -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    found = subprocess.run(
        ["git", *arguments], cwd=repository, input=stdin, env=kept, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise WorkspaceRefused(f"git {arguments[0]} failed in {repository}: {found.stderr.strip()}")
    return found.stdout
