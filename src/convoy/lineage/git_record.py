"""What git alone can tell: which revision a name means, dvc.lock as it was there, and where a hash stands in it."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from convoy.tracking.dvc_lock import LOCK, Lock

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
