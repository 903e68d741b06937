"""What an ID leads to first: a version, a run, or a bundle or dvc.lock that MLflow does not know."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from convoy.core.paths import TASKS, Task
from convoy.lineage.index import World
from convoy.tracking.build_runs import LOCK_DIGEST
from convoy.tracking.dvc_lock import Lock
from convoy.tracking.store import KnownRun, KnownVersion

_DVC = "convoy.dvc."


@dataclass(frozen=True)
class Point:
    """One state to begin from: as much of it as the ID itself leads to."""

    task: Task | None
    version: KnownVersion | None = None
    run: KnownRun | None = None
    digest: str | None = None
    revision: str | None = None
    lock: Lock | None = None

    @property
    def key(self) -> object:
        """Equal for the same state."""
        version = self.version and (self.version.name, self.version.number)
        return version or (self.run.id if self.run else (self.digest, self.revision, self.task))

    @property
    def time_ms(self) -> int:
        """When it was registered, or began; 0 where nobody knows."""
        return self.version.registered_ms if self.version else self.run.started_ms if self.run else 0


@dataclass(frozen=True)
class Match:
    """What an ID names, and the states that it leads to, the newest first."""

    kind: str
    name: str  # in full
    what: str
    points: list[Point] = field(default_factory=list)
    request: dict[str, Any] | None = None


def point_of_version(version: KnownVersion) -> Point:
    """The state that a version is."""
    return Point(task_named(version.name), version, digest=version.digest)


def points_of_run(run: KnownRun, world: World) -> list[Point]:
    """The versions that a run has given, or that its build holds; the run alone where it gave none."""
    versions = world.versions_of(run.id)
    if LOCK_DIGEST in run.tags and (version := world.version_with(run.tags.get("convoy.bundle_digest", ""))):
        versions = [version]
    task = task_named(run.tags.get("convoy.task", ""))
    return [point_of_version(version) for version in versions] or [Point(task, run=run)]


def point_of_digest(digest: str, task: Task | None, world: World) -> Point:
    """The version that holds a bundle, or the bundle alone."""
    version = world.version_with(digest)
    return point_of_version(version) if version else Point(task, digest=digest)


def distinct(points: Iterable[Point]) -> list[Point]:
    """Each state once, the newest first; what dvc.lock alone says only where MLflow knows nothing."""
    once = {point.key: point for point in points}.values()
    given = {point.version.run_id for point in once if point.version}
    named = [point for point in once if point.version or (point.run and point.run.id not in given)]
    if named:
        return sorted(named, key=lambda point: point.time_ms, reverse=True)
    return [point for point in once if point.task] or list(once)


def dvc_hashes(tags: dict[str, str]) -> dict[str, str]:
    """Path -> md5, without .dir, of what the tags of a run or a version say."""
    found = {name.removeprefix(_DVC): md5 for name, md5 in tags.items() if name.startswith(_DVC)}
    return {path: md5.removesuffix(".dir") for path, md5 in found.items()}


def task_named(name: str) -> Task | None:
    """The task that a name such as `convoy-image` belongs to."""
    return next((task for task in TASKS if name.removeprefix("convoy-") == task), None)
