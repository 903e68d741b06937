"""The git working tree -> its revision and, where sources differ from it, the patch that brings them back."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

# What the pipeline itself rewrites is no edit: dvc.lock names it by hash.
_MADE_BY_THE_PIPELINE = (":(exclude)dvc.lock", ":(exclude)reports")
# Untracked files count as sources only here, so that no stray note or secret ends in MLflow.
_NEW_SOURCES = ("src", "pipelines", "serving", "tests", "*.yaml", "*.toml", "Makefile")
REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # in full: SHA-1 or SHA-256
MAX_PATCH_BYTES = 2_000_000  # sources are far smaller; a data file added by mistake is not


class GitFailed(RuntimeError):
    """git could not tell the state of the working tree."""


@dataclass(frozen=True)
class GitState:
    """Where the sources stand: the commit, whether they differ from it, and by what."""

    revision: str
    dirty: bool
    patch: bytes | None  # None where clean, or larger than MAX_PATCH_BYTES


def revision() -> str | None:
    """The commit that is checked out; None where there is none to name."""
    if shutil.which("git") is None:
        return None
    head = _git("rev-parse", "HEAD", check=False)
    return None if head.returncode else head.stdout.decode().strip()


def read_git_state() -> GitState | None:
    """The state of the repository around the working directory; None outside one, or before its first commit.

    Raises GitFailed, with what git says.
    """
    head = revision()
    if head is None:
        return None
    patch = _patch()
    kept = patch if 0 < len(patch) <= MAX_PATCH_BYTES else None
    return GitState(head, dirty=bool(patch), patch=kept)


def _patch() -> bytes:
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
        _git("add", "--update", "--", ".", *_MADE_BY_THE_PIPELINE, environment=environment)
        listed = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *_NEW_SOURCES).stdout
        if listed:
            _git("add", "--pathspec-from-file=-", "--pathspec-file-nul", environment=environment, stdin=listed)
        return _git("diff", "--cached", "--binary", "HEAD", environment=environment).stdout


def _git(
    *arguments: str, environment: dict[str, str] | None = None, stdin: bytes = b"", check: bool = True
) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "GIT_LITERAL_PATHSPECS": "0", **(environment or {})}
    done = subprocess.run(["git", *arguments], env=environment, input=stdin, capture_output=True, check=False)
    if check and done.returncode:
        raise GitFailed(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done
