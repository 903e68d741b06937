"""Everything that `trace` searches, read once: MLflow, git, dvc.lock, local bundles, the request log."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from convoy.bundles.bundle import BundleInvalid, digest_of, read_release
from convoy.core import paths, request_log_files, tasks
from convoy.core.paths import DEPLOYED
from convoy.release import deployment
from convoy.tracking.provenance import LOCK, Lock, LockInvalid
from convoy.tracking.store import RunRecord, StoreContents, VersionRecord, read_all

MAX_LOCK_BYTES = 5_000_000  # ours has 80 kB


class _WithoutAliases(yaml.SafeLoader):
    """Refuses aliases: DVC writes none, and a few hundred bytes of nested ones would become gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


class GitRefused(RuntimeError):
    """A git command failed."""


@dataclass
class GitRecord:
    """The repository around the working directory, as far as there is one."""

    root: Path = field(default_factory=Path)

    @property
    def is_there(self) -> bool:
        """Whether there is a repository with a commit."""
        return (
            shutil.which("git") is not None
            and self._output_or_none("rev-parse", "--verify", "--quiet", "HEAD") is not None
        )

    def resolve(self, name: str) -> str | None:
        """The full revision that a name or the beginning of a hash means; None where it means none, or several."""
        if name.startswith("-") or any(character.isspace() for character in name):
            return None
        revision = self._output_or_none("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return revision.decode().strip() if revision else None

    def recent(self, count: int = 200) -> list[str]:
        """The newest revisions of all branches."""
        return (self._output_or_none("log", "--all", "--format=%H", f"--max-count={count}") or b"").decode().split()

    def about(self, revision: str) -> str:
        """The date of a revision, and the first line of its message."""
        return (self._output_or_none("log", "-1", "--format=%cI %s", revision) or b"").decode().strip()

    def lock_at(self, revision: str) -> Lock | None:
        """dvc.lock as it stands at a revision; None where there is none that can be read."""
        return lock_of(self._output_or_none("show", f"{revision}:./{LOCK}"))

    def revisions_with(self, md5: str) -> list[str]:
        """The revisions, newest first, whose dvc.lock was the first to hold a hash, or to hold it again."""
        revisions = (
            (self._output_or_none("log", "--all", "--format=%H", f"-S{md5}", "--", str(LOCK)) or b"").decode().split()
        )
        return [
            revision
            for revision in revisions
            if md5 in (self._output_or_none("show", f"{revision}:./{LOCK}") or b"").decode()
        ]

    def changed_code(self, revision: str, code: dict[str, str]) -> list[str]:
        """Those of these files (path -> md5) that differ at a revision."""
        names = "".join(f"{revision}:./{path}\n" for path in code)
        output = self._output_or_none("cat-file", "--batch", stdin=names.encode()) or b""
        changed = []
        for path, md5 in code.items():
            header, _, output = output.partition(b"\n")
            size = int(header.split()[-1]) if header.split()[-1:] and header.split()[-1].isdigit() else -1
            content, output = (output[:size], output[size + 1 :]) if size >= 0 else (b"", output)
            if size < 0 or hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                changed.append(path)
        return changed

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """The output of a git command. Raises GitRefused with its error."""
        process = self._execute(arguments, stdin)
        if process.returncode:
            raise GitRefused(f"git {' '.join(arguments[:2])} failed: {process.stderr.decode(errors='replace').strip()}")
        return process.stdout

    def _output_or_none(self, *arguments: str, stdin: bytes = b"") -> bytes | None:
        process = self._execute(arguments, stdin)
        return None if process.returncode else process.stdout

    def _execute(self, arguments: tuple[str, ...], stdin: bytes) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(["git", *arguments], cwd=self.root, input=stdin, capture_output=True, check=False)


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
        self.git = GitRecord()

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
        names = sorted({*(path.parent.name for path in Path("bundles").glob("*/manifest.json")), *tasks.with_history()})
        bundles = [
            BundleFolder(task, paths.bundle(task), digest_of(paths.bundle(task))) for task in names if _is_bundle(task)
        ]
        for task in dict.fromkeys([*names, *tasks.deployed()]):
            current = deployment.current_digest(task)
            for folder in sorted((DEPLOYED / task).glob("*/manifest.json")):
                if folder.parent.name != deployment.CURRENT:
                    digest = folder.parent.name
                    since = _promoted_at(folder.parent) if digest == current else None
                    bundles.append(BundleFolder(task, folder.parent, digest, since))
        return bundles

    @cached_property
    def searched(self) -> list[str]:
        """The sources in words, each with its size."""
        store, log = self.mlflow, request_log_files.existing(self.request_log) if self.request_log else []
        mlflow = store.trouble or f"{len(store.versions)} versions and {len(store.runs)} runs in {store.where}"
        lock = f"dvc.lock, here ({len(self.lock.stages)} stages) and as git has it"
        if not self.git.is_there:
            lock = f"dvc.lock here ({len(self.lock.stages)} stages); there is no git repository with a commit"
        requests = f"request log {self.request_log}: {len(log)} files"
        if not self.request_log:
            requests = (
                f"no request log: --requests or {request_log_files.VARIABLE} names it, where the service keeps one"
            )
        return [mlflow, f"{len(self.places)} bundles in bundles/ and deployed/", lock, requests]

    def run(self, run_id: str | None) -> RunRecord | None:
        """A run by its id."""
        return self.mlflow.runs.get(run_id) if run_id else None

    def versions_of(self, run_id: str) -> list[VersionRecord]:
        """The versions that were registered of a run."""
        return [version for version in self.mlflow.versions if version.run_id == run_id]

    def version_with(self, digest: str) -> VersionRecord | None:
        """The version that holds a bundle."""
        return next((version for version in self.mlflow.versions if version.digest == digest), None)


def _is_bundle(task: str) -> bool:
    return (paths.bundle(task) / "manifest.json").is_file()


def _promoted_at(folder: Path) -> str:
    try:
        release = read_release(folder)
    except BundleInvalid:
        release = None
    return release.promoted_at if release else "an unknown time"
