"""What entries leave behind when they are taken out: stages in dvc.lock, folders, and a deployed model."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from convoy.core import atomic, locks, paths, process, tasks
from convoy.core.params import ParamsInvalid
from convoy.core.process import Say
from convoy.core.stage import RWLOCK
from convoy.core.tasks import Entries
from convoy.release import journal
from convoy.release.rollback import withdraw

LOCK, DVC_LOCK = Path("dvc.lock"), Path(".dvc/tmp/lock")
REASON = f"its task was taken out of {paths.PARAMS}"
_DATA_FOLDERS = (paths.raw, paths.prepared, paths.data_reports, paths.baselines)
_STAGE = re.compile(r"  (\S.*):\s*")  # a line of dvc.lock that begins a stage


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
    """What the entries that only `old` has leave behind; a folder with one of `sources` in it is kept."""
    gone = [name for name in old.tasks if name not in new.tasks]
    folders = [of(task) for task in gone for of in (paths.candidates, paths.winner, paths.bundle, paths.reports)]
    folders += [of(name) for name in old.data if name not in new.data for of in _DATA_FOLDERS]
    folders += [
        of(candidate.task, candidate.name)
        for of in (paths.candidate, paths.candidate_reports)
        for candidate in old.candidates.values()
        if candidate.name not in new.candidates and candidate.task in new.tasks
    ]
    stages = (old.stages - new.stages) & set(_locked_stages())
    folders = [folder for folder in folders if os.path.lexists(folder)]
    sources = list(sources)
    kept = tuple(folder for folder in folders if any(_lies_in(source, folder) for source in sources))
    going = tuple(folder for folder in folders if folder not in kept)
    return Leftovers(frozenset(stages), going, tuple(gone), kept)


def describe(left: Leftovers) -> Iterator[str]:
    """What would be removed, in plain words."""
    for task in left.tasks:
        yield f"the task {task} goes, with its candidates"
        if task in tasks.deployed():
            yield f"  its deployed model is withdrawn: `python -m convoy history --task {task}` will still tell of it"
    if left.stages:
        yield f"out of {LOCK}: {', '.join(sorted(left.stages))}"
    if left.folders:
        yield f"removed: {', '.join(map(str, left.folders))}"
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
    for line in describe(left):
        say(line)
    for task in left.served:
        withdraw(task, REASON, say)
    if left.stages:
        lock = LOCK.resolve()  # a link stays one
        atomic.write_bytes(lock, without_stages(lock.read_bytes().decode("utf-8"), left.stages).encode("utf-8"))
    for folder in left.folders:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)


def without_stages(text: str, names: frozenset[str]) -> str:
    """The text of a dvc.lock without these stages; all else is as it was, to the byte."""
    lines = text.splitlines(keepends=True)
    kept, is_kept = [], True
    for line in lines:
        if not line.startswith("   "):  # the lines of a stage are indented by four spaces
            is_kept = _stage_of(line) not in names
        if is_kept:
            kept.append(line)
    if not any(map(_stage_of, kept)):
        kept = [line.replace("stages:", "stages: {}", 1) if line.startswith("stages:") else line for line in kept]
    return "".join(kept)


@contextmanager
def _dvc_at_rest() -> Iterator[None]:
    """Hold DVC's lock. Raises ParamsInvalid where another DVC holds it for more than 3 s, or runs a stage."""
    if not DVC_LOCK.parent.is_dir():
        yield
        return
    from dvc.lock import LockError, make_lock

    lock = make_lock(str(DVC_LOCK))
    try:
        lock.lock()
    except LockError:
        raise ParamsInvalid(f"a DVC is running here, which writes {LOCK}; say this again when it has ended") from None
    try:
        if pids := _pids_at_work():
            raise ParamsInvalid(
                f"a DVC is running here (process {pids[0]} in {RWLOCK}), which writes {LOCK}; say this again when it "
                "has ended"
            )
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


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path leads to a folder or into it, by its words or through links."""
    by_words = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return any(inner.is_relative_to(outer) for inner, outer in (by_words, (path.resolve(), folder.resolve())))


def _locked_stages() -> list[str]:
    """The names of the stages in dvc.lock."""
    try:
        lines = LOCK.read_bytes().decode("utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [name for name in map(_stage_of, lines) if name]


def _stage_of(line: str) -> str:
    """The stage that a line of dvc.lock begins; "" for other lines."""
    found = _STAGE.fullmatch(line)
    return found[1].strip("'\"") if found else ""
