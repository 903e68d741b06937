"""deployed/, its history and MLflow's aliases -> the digests that must stay, each with the reason."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlflow import MlflowClient

from convoy.bundles.bundle import BundleInvalid, read_release
from convoy.core.paths import DEPLOYED, Task
from convoy.release import deployment, journal
from convoy.tracking import registry

# A service reads the folder that `current` led to a moment before; it looks every second and loads within a few.
GRACE_S = 60
_DIGEST = re.compile(r"[0-9a-f]{64}")


def digests(client: MlflowClient, task: Task, days: int, now: datetime) -> dict[str, str]:
    """Digest -> why it stays, the strongest reason first found. Raises decisions.DecisionsBroken."""
    found: dict[str, str] = {}
    current = deployment.current_digest(task)
    if current:
        found[current] = "it serves"
    for alias, why in (("champion", "the champion"), ("challenger", "a challenger that waits")):
        version = registry.version_with(client, task, alias)  # type: ignore[arg-type]
        if version is not None:
            found.setdefault(registry.digest_of_version(version), why)
    for digest in _before(task, current):
        found.setdefault(digest, "it served before; a rollback goes back to it")
    for digest in journal.digests_named(task, now - timedelta(days=days)):
        found.setdefault(digest, f"a decision of the last {days} days names it")
    return found


def is_settling(task: Task) -> bool:
    """Whether what serves has changed so lately that a service may still read the folder of before."""
    link = DEPLOYED / task / deployment.CURRENT
    return link.is_symlink() and time.time() - link.lstat().st_mtime < GRACE_S


def bundles(task: Task) -> list[tuple[Path, datetime]]:
    """The deployed bundles, each with the time of its promotion, or of its making where its release is broken.

    The last promoted comes last.
    """
    folders = [path for path in (DEPLOYED / task).glob("*") if _DIGEST.fullmatch(path.name) and path.is_dir()]
    found = [(folder, _promoted_at(folder)) for folder in folders]
    return sorted(found, key=lambda each: (each[1], each[0].stat().st_mtime_ns))  # promotions are told to the second


def _promoted_at(folder: Path) -> datetime:
    made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    try:
        release = read_release(folder)
        at = datetime.fromisoformat(release.promoted_at) if release else made
    except (BundleInvalid, ValueError):
        return made
    return in_utc(at)


def in_utc(at: datetime) -> datetime:
    """A time that names no zone is one of UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _before(task: Task, current: str | None) -> set[str]:
    """What served before the champion: by the history, and by the releases, since the history may be younger."""
    others = [folder.name for folder, _ in bundles(task) if folder.name != current]
    before = journal.read_history(task).one_before
    return set(others[-1:]) | ({before.digest} if before else set())
