"""Everything that `trace` searches, read once: MLflow, git, dvc.lock, the bundles here, the request log."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from convoy.bundles.bundle import BundleInvalid, digest_of, read_release
from convoy.core import paths, request_files
from convoy.core.paths import DEPLOYED, TASKS, Task
from convoy.release import deployment
from convoy.tracking.provenance import LOCK, Lock, LockInvalid
from convoy.tracking.store import RunRecord, StoreContents, VersionRecord, read_all

MAX_LOCK_BYTES = 5_000_000  # ours has 80 kB


class _WithoutAliases(yaml.SafeLoader):
    """DVC writes no aliases; a few hundred bytes of nested ones would become gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


class GitRefused(RuntimeError):
    """git did not do what it was asked."""


@dataclass
class GitRecord:
    """The repository around the working directory, as far as there is one."""

    root: Path = field(default_factory=Path)

    @property
    def is_there(self) -> bool:
        """Whether there is a repository with a commit."""
        return shutil.which("git") is not None and self._ask("rev-parse", "--verify", "--quiet", "HEAD") is not None

    def resolve(self, name: str) -> str | None:
        """The full revision that a name or the beginning of a hash means; None where it means none, or several."""
        if name.startswith("-") or any(character.isspace() for character in name):
            return None
        found = self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return found.decode().strip() if found else None

    def recent(self, count: int = 200) -> list[str]:
        """The newest revisions of all branches."""
        return (self._ask("log", "--all", "--format=%H", f"--max-count={count}") or b"").decode().split()

    def about(self, revision: str) -> str:
        """When a revision was made, and its first line."""
        return (self._ask("log", "-1", "--format=%cI %s", revision) or b"").decode().strip()

    def lock_at(self, revision: str) -> Lock | None:
        """dvc.lock as it stands at a revision; None where there is none that can be read."""
        return lock_of(self._ask("show", f"{revision}:./{LOCK}"))

    def revisions_with(self, md5: str) -> list[str]:
        """The revisions, newest first, whose dvc.lock was the first to hold a hash, or to hold it again."""
        found = (self._ask("log", "--all", "--format=%H", f"-S{md5}", "--", str(LOCK)) or b"").decode().split()
        return [revision for revision in found if md5 in (self._ask("show", f"{revision}:./{LOCK}") or b"").decode()]

    def other_code(self, revision: str, code: dict[str, str]) -> list[str]:
        """Of these files (path -> md5) those that are not the same at a revision."""
        names = "".join(f"{revision}:./{path}\n" for path in code)
        answer = self._ask("cat-file", "--batch", stdin=names.encode()) or b""
        other = []
        for path, md5 in code.items():
            head, _, answer = answer.partition(b"\n")
            size = int(head.split()[-1]) if head.split()[-1:] and head.split()[-1].isdigit() else -1
            content, answer = (answer[:size], answer[size + 1 :]) if size >= 0 else (b"", answer)
            if size < 0 or hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                other.append(path)
        return other

    def do(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What git answers. Raises GitRefused, with what it says."""
        done = self._run(arguments, stdin)
        if done.returncode:
            raise GitRefused(f"git {' '.join(arguments[:2])} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def _ask(self, *arguments: str, stdin: bytes = b"") -> bytes | None:
        done = self._run(arguments, stdin)
        return None if done.returncode else done.stdout

    def _run(self, arguments: tuple[str, ...], stdin: bytes) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(["git", *arguments], cwd=self.root, input=stdin, capture_output=True, check=False)


def lock_of(content: bytes | None) -> Lock | None:
    """The Lock that these bytes of a dvc.lock are; None where they are none."""
    if content is None or len(content) > MAX_LOCK_BYTES:
        return None
    try:
        read: Any = yaml.load(content, Loader=_WithoutAliases)
        return Lock(dict(read["stages"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class BundleFolder:
    """A folder with a bundle."""

    task: Task
    folder: Path
    digest: str
    serves_since: str | None = None


class Index:
    """What there is to look into; each part is read when it is first asked for."""

    def __init__(self, request_log: str = "") -> None:
        self.request_log = request_log
        self.git = GitRecord()

    @cached_property
    def known(self) -> StoreContents:
        """What MLflow knows."""
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
        """The bundles that lie here, built or deployed."""
        found = [
            BundleFolder(task, paths.bundle(task), digest_of(paths.bundle(task))) for task in TASKS if _is_bundle(task)
        ]
        for task in TASKS:
            current = deployment.current_digest(task)
            for folder in sorted((DEPLOYED / task).glob("*/manifest.json")):
                if folder.parent.name != deployment.CURRENT:
                    digest = folder.parent.name
                    since = _since(folder.parent) if digest == current else None
                    found.append(BundleFolder(task, folder.parent, digest, since))
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

    def run(self, run_id: str | None) -> RunRecord | None:
        """A run by its id."""
        return self.known.runs.get(run_id) if run_id else None

    def versions_of(self, run_id: str) -> list[VersionRecord]:
        """The versions that a run has given."""
        return [version for version in self.known.versions if version.run_id == run_id]

    def version_with(self, digest: str) -> VersionRecord | None:
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
