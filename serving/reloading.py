"""deployed/<task>/current has changed -> the new bundle is served, or is refused and the old one stays."""

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from convoy.core.tasks import CURRENT
from serving.deployed import Deployed, Unavailable, deployed_tasks, load_task
from serving.metrics import reloads_of
from serving.models import DeployedModels

CHECK_EVERY_S = 1.0  # a check is one stat per task; a promoted model is served after this and the time to load it
# After a failed load. What the machine lacked, such as descriptors, may soon be free: the wait doubles up to the
# longest. An invalid bundle seldom becomes valid, and each try reads all of it.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
INVALID_WAIT_S = 300.0
logger = logging.getLogger("bentoml.convoy")

# Device, inode and time of change of the folder that `current` leads to: a release that is rewritten counts as new.
LinkState = tuple[int, int, int] | None


@dataclass(frozen=True)
class _Attempt:
    """The latest load of a task; after a failure `due_s` is the time (time.monotonic()) of the next one."""

    link: LinkState
    reason: str = ""  # of the failure
    wait_s: float = 0.0
    due_s: float = float("inf")

    def after_failure(self, new: Unavailable) -> "_Attempt":
        """The attempt that waits for the next load."""
        wait_s = INVALID_WAIT_S if new.invalid else min(max(SHORTEST_WAIT_S, 2 * self.wait_s), LONGEST_WAIT_S)
        return _Attempt(self.link, new.reason, wait_s, time.monotonic() + wait_s)


class Reloader:
    """Keeps the served models equal to the deployed ones, by a thread of its own in every worker.

    A bundle is loaded, checked, and replays its examples while the old one answers; then one reference changes.
    Requests that have started keep the old one; after the last of them it leaves memory.
    """

    def __init__(self, models: DeployedModels, root: Path) -> None:
        self._models, self._root = models, root
        self._attempts: dict[str, _Attempt] = {}
        self._listing_error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._check_regularly, name="reloader", daemon=True)

    def start(self) -> None:
        """Load the deployed models, and no others, then check them regularly."""
        for task in self._models.by_task:
            self._models.remove(task)
        self.check()
        self._thread.start()

    def stop(self) -> None:
        """Stop checking."""
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Load each task whose deployment has changed since the last check, or whose failed load is due again.

        A task that is new is loaded too, and one that is no longer deployed is forgotten.
        """
        for task in self._list_tasks():
            link = _read_link(self._root / task / CURRENT)
            latest = self._attempts.get(task)
            if latest is None:
                self._models.put(task, self._load(task, _Attempt(link)))
            elif link != latest.link:
                self._reload(task, _Attempt(link))
            elif time.monotonic() >= latest.due_s:
                self._reload(task, latest)

    def _list_tasks(self) -> list[str]:
        """The tasks of now; those of the last check where the folder cannot be read, or is gone as a whole."""
        try:
            tasks = deployed_tasks(self._root)
        except OSError as error:
            if self._listing_error != str(error):  # logged once, not with every check
                logger.error("the deployed tasks cannot be listed: %s", error)
            self._listing_error = str(error)
            return list(self._attempts)
        self._listing_error = ""
        for task in self._models.by_task.keys() - set(tasks):
            self._attempts.pop(task, None)
            self._models.remove(task)
            logger.info("%s is no longer deployed", task)
        return tasks

    def _load(self, task: str, attempt: _Attempt) -> Deployed | Unavailable:
        new = load_task(self._root, task, attempt.reason)
        self._attempts[task] = _Attempt(attempt.link) if isinstance(new, Deployed) else attempt.after_failure(new)
        return new

    def _reload(self, task: str, attempt: _Attempt) -> None:
        old, new = self._models.by_task[task], self._load(task, attempt)
        if isinstance(new, Deployed) or not isinstance(old, Deployed):
            self._models.put(task, new)
        elif new.reason != attempt.reason:
            logger.error("%s: version %s goes on answering; refused: %s", task, old.release.version, new.reason)
        if isinstance(new, Deployed):
            reloads_of(task, "loaded").inc()
        elif not attempt.reason:  # a deployment counts as refused once, however often it is tried
            reloads_of(task, "refused").inc()

    def _check_regularly(self) -> None:
        while not self._stop.wait(CHECK_EVERY_S):
            try:
                self.check()
            except Exception:  # load_task raises nothing; an error elsewhere must not end the thread
                logger.exception("looking at %s failed", self._root)


def _read_link(current: Path) -> LinkState:
    try:
        status = current.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
