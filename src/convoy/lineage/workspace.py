"""A copy of the working tree in a folder of its own, with other params, where a whole pipeline runs and serves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from convoy.core.params import ParamsInvalid, load

# A run in the copy makes these itself; with the original's, DVC would have nothing to run.
_LOCK, _REPORTS = "dvc.lock", "reports"  # the laboratory has a dvc.lock of its own
# Settings that would lead the copy back to the original's MLflow and models.
_DROPPED_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "CONVOY_DEPLOYED",
    "DVC_ROOT",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_WORK_TREE",
)


class WorkspaceRefused(RuntimeError):
    """A folder that cannot become a workspace."""


def create(folder: Path, overrides: Path | None = None, source: Path = Path()) -> None:
    """Copy the working tree of `source`, edits included, into `folder` as a git repository of its own.

    `overrides` is a YAML file that is merged into params.yaml. Data, DVC's cache and models that a run left in `folder`
    stay, so that the next run is quick. Raises WorkspaceRefused, or ParamsInvalid for a key that params.yaml lacks or
    that stands twice in one of the two files.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / ".git").is_dir():
        raise WorkspaceRefused(f"{folder} is not empty and no workspace; name another folder, or remove it")
    if not (source / ".git").exists():
        raise WorkspaceRefused(f"{source.absolute()} is no git repository, which says what belongs to it; clone Convoy")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").is_dir():
        _run_git(folder, "init", "--quiet")
    names = [
        name for name in _list_files(source, "--cached", "--others", "--exclude-standard") if _is_copied(source, name)
    ]
    for removed in set(_list_files(folder, "--cached")) - set(names):
        (folder / removed).unlink(missing_ok=True)
    for name in names:
        _copy(source / name, folder / name)
    if overrides is not None:
        (folder / "params.yaml").write_text(merge_files(source / "params.yaml", overrides), encoding="utf-8")
    _commit_files(folder, names)


def environment(folder: Path) -> dict[str, str]:
    """The environment in which the code of the copy runs, with this Python and everything installed beside it."""
    root = folder.absolute()
    return {**environment_without_code(), "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}


def environment_without_code() -> dict[str, str]:
    """The environment of a tool that works on the copy and must not import from it; start it with `python -P`."""
    variables = {name: value for name, value in os.environ.items() if name not in (*_DROPPED_VARIABLES, "PYTHONPATH")}
    return {**variables, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def merge_files(params: Path, overrides: Path) -> str:
    """The text of `params` with the values of `overrides` in their place, as `merge_params` says.

    Raises ParamsInvalid for a key that stands twice in one of them, too.
    """
    known, wanted = (load(path.read_text(encoding="utf-8"), path) for path in (params, overrides))
    return yaml.safe_dump(merge_params(known, wanted or {}, overrides), sort_keys=False, allow_unicode=True)


def merge_params(params: dict[str, Any], overrides: dict[str, Any], path: Path, prefix: str = "") -> dict[str, Any]:
    """Params with the leaves of `overrides` in their place; null takes out a section.

    Raises ParamsInvalid for a key that params lacks.
    """
    merged = dict(params)
    for key, value in overrides.items():
        name = f"{prefix}{key}"
        if key not in params:
            raise ParamsInvalid(f"{path}: {name} is not a key of params.yaml; remove it or correct its spelling")
        if isinstance(params[key], dict) and value is None:
            del merged[key]
            continue
        if isinstance(params[key], dict) != isinstance(value, dict):
            raise ParamsInvalid(f"{path}: {name} is {value!r}, params.yaml has {params[key]!r}; give the same kind")
        merged[key] = merge_params(params[key], value, path, f"{name}.") if isinstance(value, dict) else value
    return merged


def _is_copied(source: Path, name: str) -> bool:
    path = Path(name)
    return path.name != _LOCK and path.parts[0] != _REPORTS and (source / path).is_file()


def _copy(original: Path, copy: Path) -> None:
    """Copy a file unless it is the same already: DVC compares times before it compares content."""
    if copy.is_file() and copy.read_bytes() == original.read_bytes():
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(original, copy)


def _commit_files(folder: Path, names: list[str]) -> None:
    _run_git(folder, "add", "--all", "--force", "--pathspec-from-file=-", "--pathspec-file-nul", stdin="\0".join(names))
    _run_git(folder, "add", "--update")
    if _run_git(folder, "status", "--porcelain", "--untracked-files=no"):
        identity = ["-c", "user.name=Convoy", "-c", "user.email=convoy@localhost"]
        quiet = ["-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
        _run_git(folder, *identity, *quiet, "commit", "--quiet", "--message", "The working tree as it was laid")


def _list_files(repository: Path, *options: str) -> list[str]:
    return [name for name in _run_git(repository, "ls-files", "-z", *options).split("\0") if name]


def _run_git(repository: Path, *arguments: str, stdin: str = "") -> str:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    process = subprocess.run(
        ["git", *arguments], cwd=repository, input=stdin, env=variables, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise WorkspaceRefused(f"git {arguments[0]} failed in {repository}: {process.stderr.strip()}")
    return process.stdout
