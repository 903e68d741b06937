"""dvc.lock and the git working tree -> which content made which, as hashes, revision and patch."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from convoy.core import tasks

LOCK = Path("dvc.lock")
_CODE_FOLDERS = ("src/", "pipelines/")
IGNORED = ("__pycache__", "*.pyc", "*~", "*.swp", ".DS_Store")  # as .dvcignore says
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 40 ms instead of 300; not every build of PyYAML has it

# Files that the pipeline itself writes are no edits: dvc.lock names them by hash.
_PIPELINE_OUTPUTS = (":(exclude)dvc.lock", ":(exclude)reports")
# Untracked files count as sources only if they match, so that no stray note or secret ends in MLflow.
_SOURCE_PATTERNS = ("src", "pipelines", "serving", "tests", "*.yaml", "*.toml", "Makefile")
REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # in full: SHA-1 or SHA-256
MAX_PATCH_BYTES = 2_000_000  # sources are far smaller; a data file added by mistake is not


class LockInvalid(ValueError):
    """dvc.lock cannot be read."""


@dataclass(frozen=True)
class Lock:
    """What dvc.lock says of each stage that has run."""

    stages: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path = LOCK) -> "Lock":
        """Read dvc.lock; an absent one is a pipeline that never ran."""
        if not path.exists():
            return cls({})
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
            return cls(dict(content["stages"]))
        except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise LockInvalid(
                f"{path} is not a DVC lock file ({error}); run `dvc repro`, or `git checkout {path}`"
            ) from None

    def without_leftovers(self, stages: set[str]) -> "Lock":
        """Without the stages of entries that were taken out of params.yaml; `stages` are those of the others.

        DVC leaves them in dvc.lock. Stages that a user has added to dvc.yaml stay.
        """
        kinds = {name.partition("@")[0] for name in stages}
        is_left = {name: name.partition("@")[0] in kinds and name not in stages for name in self.stages}
        return Lock({name: content for name, content in self.stages.items() if not is_left[name]})

    def deps(self, stage: str) -> dict[str, str]:
        """Path -> md5 of all that a stage read."""
        return self._hashes(stage, "deps")

    def outs(self, stage: str) -> dict[str, str]:
        """Path -> md5 of all that a stage wrote."""
        return self._hashes(stage, "outs")

    def params(self, stage: str) -> dict[str, Any]:
        """Params of a stage as they were when it ran, by their keys in params.yaml."""
        files: dict[str, dict[str, Any]] = self.stages.get(stage, {}).get("params", {})
        return {key: value for content in files.values() for key, value in content.items()}

    def outdated(self, stage: str) -> list[str]:
        """Inputs of a stage that another stage has made again since; empty for a stage that is up to date.

        An input that holds the outputs of several stages, or is a part of one, is compared with what lies here, if all
        of it does.
        """
        made = {path: md5 for name in self.stages for path, md5 in self.outs(name).items()}
        return [path for path, md5 in self.deps(stage).items() if not _is_current(path, md5, made)]

    def producers(self, path: str) -> list[str]:
        """The stages that wrote a path, a folder that holds it, or anything in it."""
        return [name for name in self.stages if any(_overlap(path, out) for out in self.outs(name))]

    def behind(self, stage: str) -> list[str]:
        """The stages that a stage's inputs come from, each after those that it needs; itself is last."""
        ordered: dict[str, None] = {}

        def visit(name: str) -> None:
            for path in self.deps(name):
                for earlier in self.producers(path):
                    if earlier not in ordered and earlier != name:
                        visit(earlier)
            ordered[name] = None

        if stage in self.stages:
            visit(stage)
        return list(ordered)

    @property
    def tasks(self) -> list[str]:
        """The tasks whose bundles it names, by the names of its time."""
        outs = [out for name in self.stages for out in self.outs(name)]
        return [out.removeprefix("bundles/") for out in outs if out.startswith("bundles/")]

    def name_of(self, task: str) -> str | None:
        """The name that a task has here; None where no stage has made its bundle."""
        return next((name for name in tasks.names_of(task) if name in self.tasks), None)

    def to_bundle(self, task: str) -> list[str]:
        """The stages that a task's bundle comes from, each after those that it needs."""
        name = self.name_of(task)
        exporters = self.producers(f"bundles/{name}") if name else []
        return self.behind(exporters[0]) if exporters else []

    def to_reports(self, task: str) -> list[str]:
        """The stages that a task's bundle and its evaluation come from."""
        bundle = f"bundles/{self.name_of(task)}"
        evaluations = [name for name in self.stages if bundle in self.deps(name)]
        behind = [name for evaluation in evaluations for name in self.behind(evaluation)]
        return list(dict.fromkeys([*behind, *self.to_bundle(task)]))

    def outs_of(self, stages: list[str], *folders: str) -> dict[str, str]:
        """Path -> md5 of what these stages wrote below folders such as `data/`; below any without them."""
        outs = {path: md5 for name in stages for path, md5 in self.outs(name).items()}
        return {path: md5 for path, md5 in outs.items() if not folders or path.startswith(folders)}

    def changed_code(self, stages: list[str]) -> list[str]:
        """Source files that have changed since these stages ran: the present ones did not make the outputs."""
        read = {
            (path, md5) for name in stages for path, md5 in self.deps(name).items() if path.startswith(_CODE_FOLDERS)
        }
        return sorted({path for path, md5 in read if not same_file(Path(path), md5)})

    def excerpt(self, stages: list[str]) -> bytes:
        """A lock file of these stages alone."""
        kept = {name: self.stages[name] for name in stages if name in self.stages}
        return yaml.safe_dump({"schema": "2.0", "stages": kept}, sort_keys=False, allow_unicode=True).encode()

    def _hashes(self, stage: str, side: str) -> dict[str, str]:
        entries = self.stages.get(stage, {}).get(side, [])
        return {entry["path"]: str(entry.get("md5", "")) for entry in entries}


def _overlap(first: str, second: str) -> bool:
    """Whether two paths are the same, or one lies in the other."""
    return first == second or first.startswith(f"{second}/") or second.startswith(f"{first}/")


def _is_current(path: str, md5: str, made: dict[str, str]) -> bool:
    if path in made:
        return made[path] == md5
    parts = [out for out in made if _overlap(path, out)]
    is_whole = Path(path).exists() and all(Path(part).exists() for part in parts)
    return not parts or not is_whole or md5_of(Path(path)) == md5


def same_file(path: Path, md5: str) -> bool:
    """Whether a file or folder is there and has this hash of DVC's."""
    return path.exists() and md5_of(path) == md5


def md5_of(path: Path) -> str:
    """The hash that DVC gives a file or a folder."""
    return _md5_of_folder(path) if path.is_dir() else _md5_of_file(path)


def _md5_of_folder(folder: Path) -> str:
    """DVC's hash of a folder: that of a JSON list of its files."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if _counts(path)}
    entries = [{"md5": _md5_of_file(path), "relpath": name} for name, path in sorted(files.items())]
    return _md5(json.dumps(entries, sort_keys=True).encode()) + ".dir"


def _md5_of_file(path: Path) -> str:
    """A file that several stages read is hashed once, as long as it does not change: by what DVC itself goes by."""
    status = path.stat()
    return _read_md5(path.absolute(), status.st_ino, status.st_mtime_ns, status.st_size)


@cache
def _read_md5(path: Path, *_: int) -> str:
    return _md5(path.read_bytes())


def _counts(path: Path) -> bool:
    """Whether DVC counts a file as part of a folder: not those that .dvcignore names for all folders."""
    return path.is_file() and not any(fnmatch(part, pattern) for part in path.parts for pattern in IGNORED)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class GitFailed(RuntimeError):
    """git could not tell the state of the working tree."""


@dataclass(frozen=True)
class GitState:
    """The state of the sources: the commit, whether they differ from it, and by what."""

    revision: str
    dirty: bool
    patch: bytes | None  # None where clean, or larger than MAX_PATCH_BYTES


def revision() -> str | None:
    """The commit that is checked out; None where there is none to name."""
    if shutil.which("git") is None:
        return None
    completed = _git("rev-parse", "HEAD", check=False)
    return None if completed.returncode else completed.stdout.decode().strip()


def read_git_state() -> GitState | None:
    """The state of the repository around the working directory; None outside one, or before its first commit.

    Raises GitFailed, with what git says.
    """
    commit = revision()
    if commit is None:
        return None
    patch = _make_patch()
    stored_patch = patch if 0 < len(patch) <= MAX_PATCH_BYTES else None
    return GitState(commit, dirty=bool(patch), patch=stored_patch)


def _make_patch() -> bytes:
    """Edits and new sources as one binary-safe patch, made beside the user's own index and object store."""
    objects = Path(_git("rev-parse", "--git-path", "objects").stdout.decode().strip()).absolute()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "objects").mkdir()
        environment = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": f"{folder}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }
        _git("read-tree", "HEAD", environment=environment)
        _git("add", "--update", "--", ".", *_PIPELINE_OUTPUTS, environment=environment)
        new_files = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *_SOURCE_PATTERNS).stdout
        if new_files:
            _git("add", "--pathspec-from-file=-", "--pathspec-file-nul", environment=environment, stdin=new_files)
        return _git("diff", "--cached", "--binary", "HEAD", environment=environment).stdout


def _git(
    *arguments: str, environment: dict[str, str] | None = None, stdin: bytes = b"", check: bool = True
) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "GIT_LITERAL_PATHSPECS": "0", **(environment or {})}
    completed = subprocess.run(["git", *arguments], env=environment, input=stdin, capture_output=True, check=False)
    if check and completed.returncode:
        raise GitFailed(f"git {arguments[0]} failed: {completed.stderr.decode(errors='replace').strip()}")
    return completed
