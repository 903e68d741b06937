"""A state -> a git worktree of its own that holds it: sources with their edits, dvc.lock, reports, data and models."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import yaml

from convoy.core import atomic, locks
from convoy.core.process import Say
from convoy.lineage import workspace
from convoy.lineage.index import GitRefused, Index, git
from convoy.lineage.state import PATCH, State
from convoy.tracking.provenance import LOCK, Lock, same_file

WORKTREES = Path(".run/trace")
# In the header of a patch: the mode of anything but a plain file. Lines of content begin with +, - or a space.
_SPECIAL_MODE = re.compile(rb"^(?:(?:new|new file) mode |index [0-9a-f]+\.\.[0-9a-f]+ )(?!100(?:644|755)\r?$).*", re.M)

_ENTRY_KEYS = {"path", "hash", "md5", "size", "nfiles", "isexec"}
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


class CheckoutRefused(RuntimeError):
    """A state that cannot be checked out, or a folder that exists; says what would help."""


def check_out(state: State, folder: Path, index: Index, say: Say) -> None:
    """Make `folder` hold the state; the deployed models and the files here are not touched. Raises CheckoutRefused.

    Where a step fails, the folder is removed.
    """
    brought = "the data and models"
    with new_worktree(state, folder, index):
        if why := bring_data(state, folder, state.stages):
            brought = "what DVC's cache has of the data and models"
            say(f"not all of it can be brought ({why}); `dvc pull` there fetches it, or `dvc repro` makes it anew")
        say_what_differs(state, folder, say)
    say(f"{folder} holds {state.name}: sources, dvc.lock, reports and {brought}; to work there:")
    say(f"  cd {folder} && export PYTHONPATH=src:.   # its own code, not that of here")
    say(f"to take it away again: git worktree remove --force {folder}")


@contextmanager
def temporary_worktree(state: State, index: Index) -> Iterator[Path]:
    """A worktree that is removed at the end; one that a kill has left is removed first. Raises CheckoutRefused."""
    name = state.name.replace("/", "-")
    if not re.fullmatch(r"[\w-]+", name):
        raise CheckoutRefused(
            f"{state.name!r} is no name of a version, run, bundle or revision; MLflow's record is odd"
        )
    WORKTREES.mkdir(parents=True, exist_ok=True)
    folder = WORKTREES / name
    with locks.hold(WORKTREES / f".{name}.lock") as is_alone:
        if not is_alone:
            raise CheckoutRefused(f"{state.name} is being rebuilt in {folder} by another process already")
        if folder.exists():
            _remove_worktree(folder)
        with new_worktree(state, folder, index):
            yield folder
        _remove_worktree(folder)


@contextmanager
def new_worktree(state: State, folder: Path, index: Index) -> Iterator[None]:
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
    _run_git("worktree", "add", "--detach", "--quiet", str(folder), state.revision)
    try:
        _fill_worktree(state, folder, index)
        yield
    except BaseException:
        _remove_worktree(folder)
        raise


def bring_data(state: State, folder: Path, names: list[str]) -> str:
    """Let DVC check out the outs of these stages from its cache; gives the reason where the cache lacks some."""
    in_lock = [name for name in names if state.lock and name in state.lock.stages]
    process = _run_dvc(folder, "checkout", *in_lock)
    if process.returncode:
        errors = [line.removeprefix("ERROR: ") for line in process.stderr.splitlines() if line.startswith("ERROR: ")]
        return " ".join(errors) or f"dvc checkout ends with {process.returncode}"
    not_in_lock = [name for name in names if name not in in_lock]
    return f"no dvc.lock that is kept names {', '.join(not_in_lock)}" if not_in_lock else ""


def say_what_differs(state: State, folder: Path, say: Say) -> None:
    """Name the code and params there that are not those of the state's dvc.lock; data may be missing."""
    status = _run_dvc(folder, "status", "--json", *state.stages)
    for name, changes in (json.loads(status.stdout) if status.returncode == 0 else {}).items():
        deps = [change["changed deps"] for change in changes if isinstance(change, dict) and "changed deps" in change]
        changed = [path for paths in deps for path, how in paths.items() if how != "deleted"]
        if changed:
            say(f"{name}: {', '.join(changed)} is not what made {state.name}; `dvc repro` there runs that stage again")


def _remove_worktree(folder: Path) -> None:
    _run_git("worktree", "remove", "--force", str(folder))


def _run_dvc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run DVC in a worktree and import nothing from it: anyone who can write to MLflow may have written its files."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "dvc", *arguments],
        cwd=folder,
        env=workspace.environment_without_code(),
        capture_output=True,
        text=True,
        check=False,
    )


def _fill_worktree(state: State, folder: Path, index: Index) -> None:
    if state.patch is not None:
        _refuse_special_files(state, state.patch)
        _run_git("apply", "--whitespace=nowarn", "-", root=folder, stdin=state.patch)
    if state.lock is not None:
        _refuse_unknown_entries(state.lock, state)
        _write_lock(state.lock, folder)
        _write_reports(state, folder, index)
    cache = _run_dvc(Path(), "cache", "dir")
    if cache.returncode == 0:  # else there is no DVC here
        shared = _run_dvc(folder, "cache", "dir", "--local", cache.stdout.strip())
        if shared.returncode:
            raise CheckoutRefused(f"DVC's cache cannot be shared: {shared.stderr.strip()}")


def _refuse_special_files(state: State, patch: bytes) -> None:
    """A link or a submodule in a patch could lead later writes out of the worktree."""
    if match := _SPECIAL_MODE.search(patch):
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
    if state.build is None or state.lock is None:
        return
    hashes = state.lock.outs_of(state.stages)
    for path in index.mlflow.artifacts(state.build.id, "reports"):
        if not (folder / path).resolve().is_relative_to((folder / "reports").resolve()):
            raise CheckoutRefused(f"MLflow names a report outside reports/: {path!r}; nothing of {state.name} is used")
        if path in hashes and not same_file(folder / path, hashes[path]):
            content = index.mlflow.artifact(state.build.id, path)
            if content is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() == hashes[path]:
                atomic.write_bytes(folder / path, content)


def _run_git(*arguments: str, root: Path = Path(), stdin: bytes = b"") -> None:
    try:
        git(*arguments, root=root, stdin=stdin)
    except GitRefused as error:
        raise CheckoutRefused(str(error)) from None
