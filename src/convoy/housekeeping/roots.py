"""deployed/, its history and MLflow's aliases -> the digests that must stay, each with the reason."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from convoy.bundle import BundleInvalid, read_release
from convoy.layout import DEPLOYED, Task
from convoy.publishing import deployment, registry

DECISIONS = "decisions.jsonl"
# A service reads the folder that `current` led to a moment before; it looks every second and loads within a few.
GRACE_S = 60
_DIGEST = re.compile(r"[0-9a-f]{64}")


def digests(client: MlflowClient, task: Task, days: int, now: datetime) -> dict[str, str]:
    """Digest -> why it stays, the strongest reason first found."""
    found: dict[str, str] = {}
    current = deployment.current_digest(task)
    if current:
        found[current] = "it serves"
    for alias, why in (("champion", "the champion"), ("challenger", "a challenger that waits")):
        version = registry.version_with(client, task, alias)  # type: ignore[arg-type]
        if version is not None:
            found.setdefault(version.tags[registry.DIGEST], why)
    decisions = list(_decisions(task))
    before = _before(task, current, decisions)
    for digest in before:
        found.setdefault(digest, "it served before; a rollback goes back to it")
    for at, named in decisions:
        if at is None or now - at <= timedelta(days=days):
            for digest in named:
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
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _before(task: Task, current: str | None, decisions: list[tuple[datetime | None, list[str]]]) -> set[str]:
    """What served before the champion: by the history, and by the releases, since either may have been lost."""
    others = [folder.name for folder, _ in bundles(task) if folder.name != current]
    found = set(others[-1:])
    for _, named in reversed(decisions):
        if current in named and (rest := [digest for digest in named if digest != current]):
            return found | set(rest)
    return found


def _decisions(task: Task) -> Iterator[tuple[datetime | None, list[str]]]:
    """When each line of the history was written, None where it does not say, and the digests in it, oldest first."""
    path = DEPLOYED / task / DECISIONS
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            content: Any = json.loads(line)
            at = datetime.fromisoformat(content["at"])
            models = [content.get("from"), content.get("to")]
            named = [model["digest"] for model in models if isinstance(model, dict)]
        except (ValueError, KeyError, TypeError, AttributeError):
            at, named = None, _DIGEST.findall(line)  # cut off by a kill, or written by another release
        yield at if at is None or at.tzinfo else at.replace(tzinfo=UTC), named
