"""What entries leave behind when they are taken out: stages in dvc.lock, folders, and a deployed model."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.core import atomic, locks, params, paths, process, tasks
from convoy.core.params import ParamsInvalid
from convoy.core.process import Say
from convoy.core.stage import RWLOCK
from convoy.core.tasks import Entries
from convoy.release import journal
from convoy.release.rollback import withdraw

LOCK, DVC_LOCK = Path("dvc.lock"), Path(".dvc/tmp/lock")
REASON = f"its task was taken out of {paths.PARAMS}"
_TASK_FOLDERS = (paths.candidates, paths.winner, paths.bundle, paths.reports)
_DATA_FOLDERS = (paths.raw, paths.prepared, paths.data_reports, paths.baselines)
_CANDIDATE_FOLDERS = (paths.candidate, paths.candidate_reports)


@dataclass(frozen=True)
class Leftovers:
    """Names of stages that dvc.lock has, folders that exist, and the tasks that are gone."""

    stages: frozenset[str]
    folders: tuple[Path, ...]
    tasks: tuple[str, ...]
    kept: tuple[Path, ...] = ()  # folders that would go, but a source lies in them

    @property
    def served(self) -> list[str]:
        """The tasks that are gone and have a deployed model, or had one."""
        return [task for task in self.tasks if task in {*tasks.deployed(), *tasks.with_history()}]


def find(old: Entries, new: Entries, sources: Iterable[Path]) -> Leftovers:
    """What the entries that only `old` has leave behind; a folder with one of `sources` in it is kept.

    Raises ParamsInvalid for a dvc.lock that cannot be read.
    """
    new = Entries(*(_of_same_kind(getattr(new, name), getattr(old, name)) for name in ("data", "tasks", "candidates")))
    gone = tuple(name for name in old.tasks if name not in new.tasks)
    folders = [of(task) for task in gone for of in _TASK_FOLDERS]
    folders += [of(name) for name in old.data if name not in new.data for of in _DATA_FOLDERS]
    for candidate in old.candidates.values():
        if candidate.name not in new.candidates and candidate.task in new.tasks:
            folders += [of(candidate.task, candidate.name) for of in _CANDIDATE_FOLDERS]
    folders, sources = [folder for folder in folders if os.path.lexists(folder)], list(sources)
    kept = tuple(folder for folder in folders if any(_lies_in(source, folder) for source in sources))
    lock = params.load(params.read_text(LOCK), LOCK) if LOCK.exists() else None
    stages = frozenset((old.stages - new.stages) & set((lock or {}).get("stages") or ()))
    return Leftovers(stages, tuple(folder for folder in folders if folder not in kept), gone, kept)


def _of_same_kind(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Without entries that had another kind: what their name left behind is of other data."""
    return {name: entry for name, entry in new.items() if name not in old or old[name].kind == entry.kind}


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path leads to a folder or into it, by its words or through links."""
    words = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    return words or path.resolve().is_relative_to(folder.resolve())


def describe(left: Leftovers, verb: str) -> Iterator[str]:
    """What goes, in plain words; `verb` says whether it does or would."""
    for task in left.tasks:
        yield f"{verb} the task {task}, with its candidates"
        if task in tasks.deployed():
            yield f"{verb} its model from service; `python -m convoy history --task {task}` goes on telling of it"
    if left.stages:
        yield f"{verb} from {LOCK}: {', '.join(sorted(left.stages))}"
    if left.folders:
        yield f"{verb} {', '.join(map(str, left.folders))}"
    if left.kept:
        yield f"not removed, for a source lies there: {', '.join(map(str, left.kept))}"


@contextmanager
def hold(left: Leftovers, say: Say) -> Iterator[None]:
    """Hold what remove() changes, whose histories are whole.

    Raises DecisionsBroken, and ParamsInvalid where another DVC is running.
    """
    if not (left.tasks or left.stages or left.folders):
        yield
        return
    with locks.hold_deployed(say) if left.tasks else nullcontext(), _dvc_at_rest():  # a publish may be about to deploy
        for task in left.served:
            journal.read_history(task)
        yield


def remove(left: Leftovers, say: Say) -> None:
    """Withdraw the deployed models, then clean dvc.lock and remove the folders. The caller holds hold()."""
    for line in describe(left, "removing"):
        say(line)
    for task in left.served:
        withdraw(task, REASON, say)
    if left.stages:
        atomic.write_bytes(LOCK.resolve(), without_stages(params.read_text(LOCK), left.stages).encode("utf-8"))
    for folder in left.folders:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)


def without_stages(text: str, names: frozenset[str]) -> str:
    """The text of a dvc.lock without these stages, as DVC itself writes it."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    content = parse_yaml_for_update(text, str(LOCK))
    for name in names:
        content["stages"].pop(name, None)
    return str(dumps_yaml(content))


@contextmanager
def _dvc_at_rest() -> Iterator[None]:
    """Hold DVC's lock. Raises ParamsInvalid where another DVC holds it for more than 3 s, or runs a stage."""
    if not DVC_LOCK.parent.is_dir():
        yield
        return
    from dvc.lock import LockError, make_lock

    running = f"a DVC is running here, which writes {LOCK}; say this again when it has ended"
    lock = make_lock(str(DVC_LOCK))
    try:
        lock.lock()
    except LockError:
        raise ParamsInvalid(running) from None
    try:
        if pids := _pids_at_work():
            raise ParamsInvalid(f"{running} (process {pids[0]} in {RWLOCK})")
        yield
    finally:
        lock.unlock()


def _pids_at_work() -> list[int]:
    """The processes that read or write files for DVC: it frees its lock while the command of a stage runs."""
    try:
        held = json.loads(RWLOCK.read_bytes())
        readers = [holder for holders in held.get("read", {}).values() for holder in holders]
        pids = {int(holder["pid"]) for holder in [*held.get("write", {}).values(), *readers]}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return []  # torn by a kill: `verify --mend` removes it
    return sorted(pid for pid in pids if pid > 0 and pid != os.getpid() and process.exists(pid))
