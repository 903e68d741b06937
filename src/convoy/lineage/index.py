"""Everything that `trace` looks into, read once: MLflow, git, dvc.lock, the bundles that lie here, the request log."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from convoy.bundles.bundle import BundleInvalid, digest_of, read_release
from convoy.core import paths, request_files
from convoy.core.paths import DEPLOYED, TASKS, Task
from convoy.lineage.git_record import GitRecord
from convoy.release import deployment
from convoy.tracking.dvc_lock import Lock, LockInvalid
from convoy.tracking.store import Known, KnownRun, KnownVersion, read_known


@dataclass(frozen=True)
class Place:
    """A folder with a bundle."""

    task: Task
    folder: Path
    digest: str
    serves_since: str | None = None


class World:
    """What there is to look into; each part is read when it is first asked for."""

    def __init__(self, request_log: str = "") -> None:
        self.request_log = request_log
        self.git = GitRecord()

    @cached_property
    def known(self) -> Known:
        """What MLflow knows."""
        return read_known()

    @cached_property
    def lock(self) -> Lock:
        """dvc.lock of the working tree; an empty one where it cannot be read."""
        try:
            return Lock.read()
        except LockInvalid:
            return Lock({})

    @cached_property
    def places(self) -> list[Place]:
        """The bundles that lie here, built or deployed."""
        found = [Place(task, paths.bundle(task), digest_of(paths.bundle(task))) for task in TASKS if _is_bundle(task)]
        for task in TASKS:
            current = deployment.current_digest(task)
            for folder in sorted((DEPLOYED / task).glob("*/manifest.json")):
                if folder.parent.name != deployment.CURRENT:
                    digest = folder.parent.name
                    since = _since(folder.parent) if digest == current else None
                    found.append(Place(task, folder.parent, digest, since))
        return found

    @cached_property
    def looked_at(self) -> list[str]:
        """Where an ID is looked for, and how much there is, in words."""
        known, log = self.known, request_files.existing(self.request_log) if self.request_log else []
        mlflow = known.trouble or f"{len(known.versions)} versions and {len(known.runs)} runs in {known.where}"
        lock = f"dvc.lock, here ({len(self.lock.stages)} stages) and as git has it"
        if not self.git.is_there:
            lock = f"dvc.lock here ({len(self.lock.stages)} stages); there is no git repository with a commit"
        requests = f"request log {self.request_log}: {len(log)} files"
        if not self.request_log:
            requests = f"no request log: --requests or {request_files.VARIABLE} names it, where the service keeps one"
        return [mlflow, f"{len(self.places)} bundles in bundles/ and deployed/", lock, requests]

    def run(self, run_id: str | None) -> KnownRun | None:
        """A run by its id."""
        return self.known.runs.get(run_id) if run_id else None

    def versions_of(self, run_id: str) -> list[KnownVersion]:
        """The versions that a run has given."""
        return [version for version in self.known.versions if version.run_id == run_id]

    def version_with(self, digest: str) -> KnownVersion | None:
        """The version that holds a bundle."""
        return next((version for version in self.known.versions if version.digest == digest), None)


def _is_bundle(task: Task) -> bool:
    return (paths.bundle(task) / "manifest.json").is_file()


def _since(folder: Path) -> str:
    try:
        release = read_release(folder)
    except BundleInvalid:
        release = None
    return release.promoted_at if release else "an unknown time"
