"""deployed/<task>/current has moved -> the new bundle answers, or is refused and the old one goes on."""

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from convoy.core.paths import TASKS, Task
from serving.deployed import Deployed, DeployedModels, Unavailable, load_task
from serving.metrics import reloads_of

LOOK_EVERY_S = 1.0  # a look is one stat per task; a promotion serves after this and the time that loading takes
# After a failed load. What the machine lacked, such as descriptors, may be there soon: the wait doubles up to the
# longest. An invalid bundle seldom becomes valid, and each try reads all of it.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
INVALID_WAIT_S = 300.0
logger = logging.getLogger("bentoml.convoy")

# Which folder `current` leads to, and what was last put into it: a release that is rewritten counts as new too.
Sight = tuple[int, int, int] | None


@dataclass(frozen=True)
class _Attempt:
    """The latest load of a task: of what, and where it has failed when (time.monotonic()) the next one is due."""

    sight: Sight
    reason: str = ""  # of the failure
    wait_s: float = 0.0
    due_s: float = float("inf")

    def failed(self, new: Unavailable) -> "_Attempt":
        """What follows a failure."""
        wait_s = INVALID_WAIT_S if new.invalid else min(max(SHORTEST_WAIT_S, 2 * self.wait_s), LONGEST_WAIT_S)
        return _Attempt(self.sight, new.reason, wait_s, time.monotonic() + wait_s)


class Reloader:
    """Keeps what answers at what is deployed, by a thread of its own in every worker.

    A bundle is loaded, checked, and replays its examples beside the one that answers; then one reference changes.
    Requests that hold the old one end with it, and with the last of them it leaves memory.
    """

    def __init__(self, models: DeployedModels, root: Path) -> None:
        self._models, self._root = models, root
        self._attempts: dict[Task, _Attempt] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="reloader", daemon=True)

    def start(self) -> None:
        """Load what is deployed now, then follow it."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer."""
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Load each task whose deployment has changed since the last look, or whose failed load is due again."""
        for task in TASKS:
            sight = _look_at(self._root / task / "current")
            latest = self._attempts.get(task)
            if latest is None:
                self._models.by_task[task] = self._load(task, _Attempt(sight))
            elif sight != latest.sight:
                self._reload(task, _Attempt(sight))
            elif time.monotonic() >= latest.due_s:
                self._reload(task, latest)

    def _load(self, task: Task, attempt: _Attempt) -> Deployed | Unavailable:
        new = load_task(self._root, task, attempt.reason)
        self._attempts[task] = _Attempt(attempt.sight) if isinstance(new, Deployed) else attempt.failed(new)
        return new

    def _reload(self, task: Task, attempt: _Attempt) -> None:
        old, new = self._models.by_task[task], self._load(task, attempt)
        if isinstance(new, Deployed) or not isinstance(old, Deployed):
            self._models.by_task[task] = new
        elif new.reason != attempt.reason:
            logger.error("%s: version %s goes on answering; refused: %s", task, old.release.version, new.reason)
        if isinstance(new, Deployed):
            reloads_of(task, "loaded").inc()
        elif not attempt.reason:  # a deployment is refused once, however often it is tried
            reloads_of(task, "refused").inc()

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # load_task raises nothing; whatever else does must not end the thread
                logger.exception("looking at %s failed", self._root)


def _look_at(current: Path) -> Sight:
    try:
        found = current.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
