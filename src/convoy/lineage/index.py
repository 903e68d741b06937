"""Everything that `trace` searches, read once: MLflow, dvc.lock, local bundles, the request log."""

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from convoy.bundles.bundle import BundleInvalid, digest_of, read_release
from convoy.core import paths, request_log_files, tasks
from convoy.core.paths import DEPLOYED
from convoy.release import deployment
from convoy.tracking.provenance import Lock, LockInvalid
from convoy.tracking.store import RunRecord, StoreContents, VersionRecord, read_all

MAX_LOCK_BYTES = 5_000_000  # ours has 80 kB


class _WithoutAliases(yaml.SafeLoader):
    """Refuses aliases: DVC writes none, and a few hundred bytes of nested ones would become gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


class GitRefused(RuntimeError):
    """A git command failed, or there is no git."""


def git(*arguments: str, root: Path = Path(), stdin: bytes = b"") -> bytes:
    """The output of a git command in the repository around `root`. Raises GitRefused with its error."""
    try:
        process = subprocess.run(["git", *arguments], cwd=root, input=stdin, capture_output=True, check=False)
    except FileNotFoundError:
        raise GitRefused("git is not installed here") from None
    if process.returncode:
        raise GitRefused(f"git {' '.join(arguments[:2])} failed: {process.stderr.decode(errors='replace').strip()}")
    return process.stdout


def lock_of(content: bytes | None) -> Lock | None:
    """The Lock in these bytes of a dvc.lock; None where they cannot be read."""
    if content is None or len(content) > MAX_LOCK_BYTES:
        return None
    try:
        mapping: Any = yaml.load(content, Loader=_WithoutAliases)
        return Lock(dict(mapping["stages"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class BundleFolder:
    """A folder with a bundle."""

    task: str
    folder: Path
    digest: str
    serves_since: str | None = None


class Index:
    """The sources that `trace` searches; each is read when it is first needed."""

    def __init__(self, request_log: str = "") -> None:
        self.request_log = request_log

    @cached_property
    def mlflow(self) -> StoreContents:
        """All runs and versions in MLflow."""
        return read_all()

    @cached_property
    def lock(self) -> Lock:
        """dvc.lock of the working tree; an empty one where it cannot be read."""
        try:
            return Lock.read()
        except LockInvalid:
            return Lock({})

    @cached_property
    def places(self) -> list[BundleFolder]:
        """The built and the deployed bundles of this folder."""
        names = {*(path.parent.name for path in Path("bundles").glob("*/manifest.json")), *tasks.with_history()}
        built = [task for task in sorted(names) if (paths.bundle(task) / "manifest.json").is_file()]
        bundles = [BundleFolder(task, paths.bundle(task), digest_of(paths.bundle(task))) for task in built]
        for task in sorted({*names, *tasks.deployed()}):
            current = deployment.current_digest(task)
            for folder in sorted(path.parent for path in (DEPLOYED / task).glob("*/manifest.json")):
                if folder.name != deployment.CURRENT:
                    since = _promoted_at(folder) if folder.name == current else None
                    bundles.append(BundleFolder(task, folder, folder.name, since))
        return bundles

    @property
    def searched(self) -> list[str]:
        """The sources in words, each with its size."""
        store = self.mlflow
        requests = f"no request log: --requests or {request_log_files.VARIABLE} names it, where the service keeps one"
        if self.request_log:
            requests = f"request log {self.request_log}: {len(request_log_files.existing(self.request_log))} files"
        return [
            store.trouble or f"{len(store.versions)} versions and {len(store.runs)} runs in {store.where}",
            f"{len(self.places)} bundles in bundles/ and deployed/",
            requests,
        ]

    def run(self, run_id: str | None) -> RunRecord | None:
        """A run by its id."""
        return self.mlflow.runs.get(run_id) if run_id else None

    def version_with(self, digest: str) -> VersionRecord | None:
        """The version that holds a bundle."""
        return next((version for version in self.mlflow.versions if version.digest == digest), None)


def _promoted_at(folder: Path) -> str:
    try:
        release = read_release(folder)
    except BundleInvalid:
        release = None
    return release.promoted_at if release else "an unknown time"
