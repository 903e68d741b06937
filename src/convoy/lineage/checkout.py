"""A state -> a git worktree of its own that holds it: sources with their edits, dvc.lock, reports, data and models."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import yaml

from convoy.core import atomic
from convoy.core.process import Say
from convoy.lineage import workspace
from convoy.lineage.index import GitRecord, GitRefused, Index
from convoy.lineage.state import PATCH, State, code_of
from convoy.tracking.provenance import LOCK, Lock, same_file

# In the header of a patch: the mode of anything but a plain file. Lines of content begin with +, - or a space.
_SPECIAL_MODE = re.compile(rb"^(?:(?:new|new file) mode |index [0-9a-f]+\.\.[0-9a-f]+ )(?!100(?:644|755)\r?$).*", re.M)

_ENTRY_KEYS = {"path", "hash", "md5", "size", "nfiles", "isexec"}
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


class CheckoutRefused(RuntimeError):
    """A state that cannot be checked out, or a folder that exists; says what would help."""


def cache_folder() -> Path | None:
    """Where this repository's DVC keeps its objects; None outside one."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return Path(repo.cache.local_cache_dir)
    except DvcException:
        return None


def check_out(state: State, folder: Path, index: Index, say: Say) -> None:
    """Make `folder` hold the state; the deployed models and the files here are not touched. Raises CheckoutRefused.

    Where a step fails, the folder is removed.
    """
    brought = "the data and models"
    with new_worktree(state, folder, index, say):
        if why := bring_data(state, folder, stages_of(state)):
            brought = "what DVC's cache has of the data and models"
            say(f"not all of it can be brought ({why}); `dvc pull` there fetches it, or `dvc repro` makes it anew")
    say(f"{folder} holds {state.name}: sources, dvc.lock, reports and {brought}; to work there:")
    say(f"  cd {folder} && export PYTHONPATH=src:.   # its own code, not that of here")
    say(f"to take it away again: git worktree remove --force {folder}")


def stages_of(state: State) -> list[str]:
    """The stages that a state's bundle and its reports come from, as its dvc.lock names them."""
    return state.lock.to_reports(state.task) if state.lock and state.task else []


@contextmanager
def new_worktree(state: State, folder: Path, index: Index, say: Say) -> Iterator[None]:
    """`folder` with the sources, dvc.lock and reports of a state, and DVC's cache of here; removed on an error."""
    if os.path.lexists(folder):
        raise CheckoutRefused(f"{folder} is there already; name a folder that is not")
    if state.revision is None or state.task is None:
        reason = "; ".join(state.missing) or "no git revision is known of it"
        raise CheckoutRefused(f"{state.name} cannot be brought back: {reason}")
    if state.edits.startswith("made"):
        raise CheckoutRefused(
            f"{state.name} was made from {state.revision} with edits that were not kept (a patch of more than 2 MB, or "
            f"MLflow has lost it): `git worktree add --detach {folder} {state.revision}` gives what is known"
        )
    _run_git(index.git, "worktree", "add", "--detach", "--quiet", str(folder), state.revision)
    try:
        _fill_worktree(state, folder, index, say)
        yield
    except BaseException:
        remove_worktree(folder, index.git)
        raise


def remove_worktree(folder: Path, git: GitRecord) -> None:
    """Remove a worktree and everything in it."""
    _run_git(git, "worktree", "remove", "--force", str(folder))


def bring_data(state: State, folder: Path, names: list[str]) -> str:
    """Let DVC check out the outs of these stages from its cache; gives the reason where the cache lacks some."""
    in_lock = [name for name in names if state.lock and name in state.lock.stages]
    process = run_dvc(folder, "checkout", *in_lock)
    if process.returncode:
        errors = [line.removeprefix("ERROR: ") for line in process.stderr.splitlines() if line.startswith("ERROR: ")]
        return " ".join(errors) or f"dvc checkout ends with {process.returncode}"
    not_in_lock = [name for name in names if name not in in_lock]
    return f"no dvc.lock that is kept names {', '.join(not_in_lock)}" if not_in_lock else ""


def run_dvc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run DVC in a worktree and import nothing from it: anyone who can write to MLflow may have written its files."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "dvc", *arguments],
        cwd=folder,
        env=workspace.environment_without_code(),
        capture_output=True,
        text=True,
        check=False,
    )


def _fill_worktree(state: State, folder: Path, index: Index, say: Say) -> None:
    if state.patch is not None:
        _refuse_special_files(state)
        _run_git(GitRecord(folder), "apply", "--whitespace=nowarn", "-", stdin=state.patch)
    if state.lock is not None:
        _refuse_unknown_entries(state.lock, state)
        _write_lock(state.lock, folder)
        _write_reports(state, folder, index)
    if cache := cache_folder():
        process = run_dvc(folder, "cache", "dir", "--local", str(cache))
        if process.returncode:
            raise CheckoutRefused(f"DVC's cache cannot be shared: {process.stderr.strip()}")
    changed = [path for path, md5 in code_of(state).items() if not same_file(folder / path, md5)]
    if changed:
        say(
            f"{len(changed)} source files, {changed[0]} first, are not what made it: "
            "`dvc repro` there reruns their stages"
        )
    for name in _changed_params(state, folder):
        say(f"params.yaml: {name} is not what {state.name} was made with; {LOCK} there has the values")


def _refuse_special_files(state: State) -> None:
    """A link or a submodule in a patch could lead later writes out of the worktree."""
    if state.patch is not None and (match := _SPECIAL_MODE.search(state.patch)):
        line = match[0].decode(errors="replace")
        raise CheckoutRefused(
            f"{PATCH} of {state.name} makes something other than a plain file ({line!r}), as a symbolic link or a "
            f"submodule; `git worktree add --detach FOLDER {state.revision}` gives that state without the edits"
        )


def _refuse_unknown_entries(lock: Lock, state: State) -> None:
    """DVC uses a hash as a path in its cache, and writes an entry's outs to any path that it names."""
    for name, stage in lock.stages.items():
        for entry in [*stage.get("deps", ()), *stage.get("outs", ())]:
            path, md5 = PurePosixPath(str(entry.get("path", "/"))), str(entry.get("md5", ""))
            is_inside = not path.is_absolute() and ".." not in path.parts and "\\" not in str(path)
            if not (set(entry) <= _ENTRY_KEYS and is_inside and (_MD5.fullmatch(md5) or "md5" not in entry)):
                raise CheckoutRefused(
                    f"{LOCK} of {state.name} ({state.lock_from}) has an entry in the stage {name!r} that DVC does not "
                    f"write, {str(entry)[:200]!r}; nothing of that state is used"
                )


def _write_lock(lock: Lock, folder: Path) -> None:
    """Write the state's stages over the revision's: dvc.lock is often committed later than it is published."""
    committed = Lock.read(folder / LOCK).stages
    content = {"schema": "2.0", "stages": {**committed, **lock.stages}}
    atomic.write_bytes(folder / LOCK, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


def _write_reports(state: State, folder: Path, index: Index) -> None:
    """Write the build's reports where the revision's differ: git keeps reports, DVC's cache does not."""
    if state.build is None or state.lock is None or state.task is None:
        return
    hashes = state.lock.outs_of(stages_of(state))
    for path in index.mlflow.artifacts(state.build.id, "reports"):
        if not (folder / path).resolve().is_relative_to((folder / "reports").resolve()):
            raise CheckoutRefused(f"MLflow names a report outside reports/: {path!r}; nothing of {state.name} is used")
        if path in hashes and not same_file(folder / path, hashes[path]):
            content = index.mlflow.artifact(state.build.id, path)
            if content is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() == hashes[path]:
                atomic.write_bytes(folder / path, content)


def _changed_params(state: State, folder: Path) -> list[str]:
    """Keys of params.yaml whose values differ from those that the stages ran with."""
    if state.lock is None or state.task is None:
        return []
    content = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    used = {key: value for name in stages_of(state) for key, value in state.lock.params(name).items()}
    return [key for key, value in used.items() if _with_numbers(_value_at(content, key)) != _with_numbers(value)]


def _value_at(content: object, key: str) -> object:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _with_numbers(value: object) -> object:
    """Numbers as numbers: DVC writes 1e-05, which YAML reads as text."""
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _run_git(git: GitRecord, *arguments: str, stdin: bytes = b"") -> None:
    try:
        git.run(*arguments, stdin=stdin)
    except GitRefused as error:
        raise CheckoutRefused(str(error)) from None
