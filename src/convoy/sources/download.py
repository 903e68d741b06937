"""Fetch a published file once, prove its sha256, keep it in the user's cache, so that later runs need no network."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from convoy.core import atomic
from convoy.core.atomic import sha256_of

# One way to get a file: fills the path it is given, or raises.
Way = tuple[str, Callable[[Path], None]]


class SourceUnavailable(RuntimeError):
    """No way led to a file with the expected sha256; the message lists what was tried and what to do."""


def cache_folder() -> Path:
    """Where verified files are kept: $XDG_CACHE_HOME/convoy, by default ~/.cache/convoy."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "convoy")


def fetch_verified(name: str, sha256: str, ways: Sequence[Way], target: Path) -> None:
    """Put the file with this sha256 at `target`, from the cache or by the first way that yields it.

    Raises SourceUnavailable where none does; nothing unverified is ever left behind.
    """
    cached = cache_folder() / sha256 / name
    if not _matches(cached, sha256):
        _fill_cache(cached, sha256, ways)
    with atomic.new_file(target) as temporary:
        shutil.copyfile(cached, temporary)


def _fill_cache(cached: Path, sha256: str, ways: Sequence[Way]) -> None:
    failures = []
    for description, fetch in ways:
        print(f"{cached.name}: trying {description}", flush=True)
        try:
            with atomic.new_file(cached) as temporary:
                fetch(temporary)
                if not _matches(temporary, sha256):
                    raise OSError("the file's sha256 is not the published one")
            return
        except Exception as error:  # each way fails in its own manner; the next one may work
            failures.append(f"  {description}: {error}")
    raise SourceUnavailable(
        f"{cached.name} could not be had:\n" + "\n".join(failures) + f"\n"
        f"Remedy: put the file with sha256 {sha256} at {cached} and run again."
    )


def _matches(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256
