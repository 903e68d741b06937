"""deployed/<task>/current has changed -> the new bundle is served, or is refused and the old one stays."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from convoy.core.tasks import CURRENT
from serving.deployed import Deployed, Unavailable, deployed_tasks, load_task
from serving.metrics import reloads_of
from serving.models import DeployedModels, Model

CHECK_EVERY_S = 1.0  # a check is one stat per task; a promoted model is served after this and the time to load it
# After a failed load. What the machine lacked, such as descriptors, may soon be free: the wait doubles up to the
# longest. An invalid bundle seldom becomes valid, and each try reads all of it.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
INVALID_WAIT_S = 300.0
LIMIT_S = 10.0  # of a listing or a load, until the other tasks go on without it; a load from a cold disk takes 2 s
logger = logging.getLogger("bentoml.convoy")

T = TypeVar("T")
# Device, inode and time of change of `current` itself, or of the folder that it leads to: a release that is rewritten
# counts as new.
State = tuple[int, int, int] | None


@dataclass(frozen=True)
class _Attempt:
    """The latest load of a task; after a failure `due_s` is the time (time.monotonic()) of the next one."""

    link: State
    reason: str = ""  # of the failure
    wait_s: float = 0.0
    due_s: float = float("inf")

    def after_failure(self, new: Unavailable) -> "_Attempt":
        """The attempt that waits for the next load."""
        wait_s = INVALID_WAIT_S if new.invalid else min(max(SHORTEST_WAIT_S, 2 * self.wait_s), LONGEST_WAIT_S)
        return _Attempt(self.link, new.reason, wait_s, time.monotonic() + wait_s)


class Step(threading.Thread, Generic[T]):
    """Work in a thread that nobody waits for longer than LIMIT_S, not even the process at its end.

    A network folder that hangs, or a file that is none, blocks whoever opens it for as long as it likes.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(name="reloader's step", daemon=True)
        self._work = work
        self._result: T
        self._error: BaseException | None = None
        self.start()
        self.join(LIMIT_S)

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # for result(); a thread of its own has nobody to tell
            self._error = error

    def result(self) -> T:
        """What the work, which has ended, gave; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result


class _Loaded(NamedTuple):
    """What a look at a task has loaded."""

    model: Model
    attempt: _Attempt
    earlier_reason: str  # why the same deployment was refused before


class _Look:
    """A look at one task: it is loaded where it has changed, or where its failed load is due again."""

    def __init__(self, root: Path, task: str, link_itself: State, latest: _Attempt | None) -> None:
        self.link_itself, self.latest = link_itself, latest
        self.slow_reason = ""  # set when it was told that this look takes long
        self.step = Step(lambda: _load_if_due(root, task, latest))


def _load_if_due(root: Path, task: str, latest: _Attempt | None) -> _Loaded | None:
    link = _read_state(root / task / CURRENT)
    if latest is None or link != latest.link:
        attempt = _Attempt(link)
    elif time.monotonic() >= latest.due_s:
        attempt = latest
    else:
        return None
    model = load_task(root, task, attempt.reason)
    tried = attempt.after_failure(model) if isinstance(model, Unavailable) else _Attempt(link)
    return _Loaded(model, tried, attempt.reason)


class Reloader:
    """Keeps the served models equal to the deployed ones, by threads of its own in every worker.

    A bundle is loaded, checked, and replays its examples while the old one answers; then one reference changes.
    Requests that have started keep the old one; after the last of them it leaves memory. The tasks take turns; one that
    takes longer than LIMIT_S is left behind until its files answer, or `current` leads to others.
    """

    def __init__(self, models: DeployedModels, root: Path) -> None:
        self._models, self._root = models, root
        self._attempts: dict[str, _Attempt] = {}
        self._links: dict[str, State] = {}  # of the tasks, as last listed
        self._listing: Step[dict[str, State]] | None = None  # the one that hangs
        self._listing_error = ""
        self._slow: dict[str, _Look] = {}
        self._counts = False  # not yet: what is loaded at the start is no reload
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._check_regularly, name="reloader", daemon=True)

    def start(self) -> None:
        """Load the deployed models, and no others, then check them regularly."""
        for task in self._models.by_task:
            self._models.remove(task)
        self.check()
        self._thread.start()

    def stop(self) -> None:
        """Stop checking; what is being loaded is not waited for."""
        self._stop.set()
        self._thread.join(CHECK_EVERY_S)

    def check(self) -> None:
        """Load each task whose deployment has changed since the last check, or whose failed load is due again.

        A task that is new is loaded too, and one that is no longer deployed is forgotten.
        """
        self._list_tasks()
        for task, link_itself in self._links.items():
            if self._stop.is_set():
                return
            try:
                self._look_at(task, link_itself)
            except Exception:  # load_task raises nothing; an error elsewhere must not keep the other tasks
                logger.exception("looking at %s failed", task)
        self._counts = True

    def _list_tasks(self) -> None:
        """List the tasks of now; those of before stay where the folder cannot be read, or is gone as a whole."""
        listing = self._listing or Step(lambda: _list_links(self._root))
        try:
            if listing.is_alive():
                raise TimeoutError(f"{self._root} has not answered for {LIMIT_S:g} s")
            self._listing = None
            self._links = listing.result()
        except OSError as error:
            self._listing = listing if listing.is_alive() else None
            if self._listing_error != str(error):  # logged once, not with every check
                logger.error("the deployed tasks cannot be listed: %s", error)
            self._listing_error = str(error)
            return
        self._listing_error = ""
        for task in self._models.by_task.keys() - self._links.keys():
            self._attempts.pop(task, None)
            self._slow.pop(task, None)
            self._models.remove(task)
            logger.info("%s is no longer deployed", task)

    def _look_at(self, task: str, link_itself: State) -> None:
        look = self._slow.pop(task, None)
        if look is None or look.link_itself != link_itself:
            look = _Look(self._root, task, link_itself, self._attempts.get(task))
        if look.step.is_alive():
            self._slow[task] = look
            if not look.slow_reason:  # told once
                look.slow_reason = f"{task}/{CURRENT} has not been loaded within {LIMIT_S:g} s: its files do not answer"
                logger.error("%s: %s", task, look.slow_reason)
                self._follow(task, Unavailable(look.slow_reason), "")
        elif loaded := look.step.result():
            self._attempts[task] = loaded.attempt
            self._follow(task, loaded.model, look.slow_reason or loaded.earlier_reason)
        elif look.slow_reason and look.latest and look.latest.reason:
            self._follow(task, Unavailable(look.latest.reason), look.latest.reason)

    def _follow(self, task: str, new: Model, earlier_reason: str) -> None:
        """Let a model answer, or go on with the old one. `earlier_reason`: why this deployment was refused before."""
        old = self._models.by_task.get(task)
        if isinstance(new, Deployed) or not isinstance(old, Deployed):
            self._models.put(task, new)
        elif new.reason != earlier_reason:
            logger.error("%s: version %s goes on answering; refused: %s", task, old.release.version, new.reason)
        if not self._counts:
            return
        if isinstance(new, Deployed):
            reloads_of(task, "loaded").inc()
        elif not earlier_reason:  # a deployment counts as refused once, however often it is tried
            reloads_of(task, "refused").inc()

    def _check_regularly(self) -> None:
        while not self._stop.wait(CHECK_EVERY_S):
            try:
                self.check()
            except Exception:  # of any kind: it must not end the thread
                logger.exception("looking at %s failed", self._root)


def _list_links(root: Path) -> dict[str, State]:
    """The tasks, each with the state of its link, which asks nothing of where it leads to. Raises OSError."""
    return {task: _read_state(root / task / CURRENT, follow_link=False) for task in deployed_tasks(root)}


def _read_state(path: Path, follow_link: bool = True) -> State:
    try:
        status = os.stat(path, follow_symlinks=follow_link)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
