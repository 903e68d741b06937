"""deployed/<task>/current has moved -> the new bundle answers, or is refused and the old one goes on."""

import logging
import threading
from pathlib import Path

from convoy.layout import TASKS, Task
from serving.deployed import Deployed, DeployedModels, load_task
from serving.measures import reloads_of

LOOK_EVERY_S = 1.0  # a look is one stat per task; a promotion serves after this and the time that loading takes
logger = logging.getLogger("bentoml.convoy")

# Which folder `current` leads to, and what was last put into it: a release that is rewritten counts as new too.
Sight = tuple[int, int, int] | None


class Reloader:
    """Keeps what answers at what is deployed, by a thread of its own in every worker.

    A bundle is loaded, checked, and replays its examples beside the one that answers; then one reference changes.
    Requests that hold the old one end with it, and with the last of them it leaves memory.
    """

    def __init__(self, models: DeployedModels, root: Path) -> None:
        self._models, self._root = models, root
        self._seen: dict[Task, Sight] = {}
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
        """Load each task whose deployment has changed since the last look."""
        for task in TASKS:
            sight = _look_at(self._root / task / "current")
            if task not in self._seen:
                self._models.by_task[task] = load_task(self._root, task)
            elif sight != self._seen[task]:
                self._reload(task)
            self._seen[task] = sight

    def _reload(self, task: Task) -> None:
        old, new = self._models.by_task[task], load_task(self._root, task)
        if isinstance(new, Deployed) or not isinstance(old, Deployed):
            self._models.by_task[task] = new
        else:
            logger.error("%s: version %s goes on answering; refused: %s", task, old.release.version, new.reason)
        reloads_of(task, "loaded" if isinstance(new, Deployed) else "refused").inc()

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
