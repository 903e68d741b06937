"""What git and the runs that stay name -> DVC's cache without the rest, by DVC's own gc."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import yaml

from convoy.core.process import Say
from convoy.tracking.provenance import REVISION

ROOTS = Path(".run/gc-roots")
# Branches, tags and experiments are names that a person gave: what they lead to stays, whatever its age.
_NAMED = ("--workspace", "--all-branches", "--all-tags", "--all-experiments")
# From tags in MLflow, which may hold anything: a path too.
_MD5 = re.compile(r"[0-9a-f]{32}(?:\.dir)?")
_REMOVED = re.compile(r"Removed (\d+) objects from local cache")


class CacheRefused(RuntimeError):
    """DVC's gc would fail, or would remove what others need."""


def collect(revisions: Collection[str], hashes: Collection[str], dry: bool, say: Say) -> None:
    """Remove, or with `dry` count, the objects of DVC's cache that nothing names.

    Kept are those of this folder, of every branch, tag and experiment, of other worktrees of this repository that
    share the cache, of git's `revisions`, and `hashes` (md5, as the runs that stay note them; a tree that was dirty has
    no revision that would name them). Raises CacheRefused.
    """
    if not Path(".dvc").is_dir():
        say("no DVC repository here, so no cache of its to look at")
        return
    cache = Path(_dvc("cache", "dir").strip()).resolve()
    if not cache.is_relative_to(Path().resolve()):
        say(f"DVC's cache is {cache}, outside this folder: others may use it, so its gc is left to you (`dvc gc`)")
        return
    if not cache.exists():
        return
    named = set(hashes).union(*(_hashes_of(revision) for revision in revisions if REVISION.fullmatch(revision)))
    _lay_roots(cache, named)
    projects = [str(ROOTS), *_worktrees(cache)]
    said = _dvc("gc", *_NAMED, "--force", *(["--dry"] if dry else []), "--projects", *projects)
    shutil.rmtree(ROOTS)
    counted = _REMOVED.search(said)
    number = counted[1] if counted else "0"
    say(f"DVC's cache: {number} objects {'go' if dry else 'are gone'} that nothing which stays names")


def _hashes_of(revision: str) -> set[str]:
    """The md5 of every output in the dvc.lock of a revision; none where git no longer has it."""
    shown = subprocess.run(["git", "show", f"{revision}:./dvc.lock"], capture_output=True, check=False)
    if shown.returncode:
        return set()
    stages = (yaml.safe_load(shown.stdout) or {}).get("stages", {})
    return {out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def _lay_roots(cache: Path, hashes: Collection[str]) -> None:
    """A DVC project that needs these hashes and nothing else: its gc takes other projects' needs into account.

    It is a git repository too, since DVC looks for branches in every project that it is given.
    """
    shutil.rmtree(ROOTS, ignore_errors=True)
    (ROOTS / ".dvc").mkdir(parents=True)
    (ROOTS / ".dvc" / "config").write_text(f"[cache]\n    dir = {cache}\n")
    identity = ("-c", "user.name=Convoy", "-c", "user.email=convoy@localhost", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), (*identity, "commit", "--quiet", "--allow-empty", "--message", "nothing")):
        done = subprocess.run(["git", *words], cwd=ROOTS, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CacheRefused(f"git failed in {ROOTS}: {done.stderr.strip()}")
    for md5 in sorted(filter(_MD5.fullmatch, hashes)):
        if _object(cache, md5).exists():
            out = {"md5": md5, "hash": "md5", "path": md5}
            (ROOTS / f"{md5}.dvc").write_text(yaml.safe_dump({"outs": [out]}))


def _object(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _worktrees(cache: Path) -> list[str]:
    """Other worktrees of this repository whose DVC uses the same cache."""
    listed = subprocess.run(["git", "worktree", "list", "--porcelain"], capture_output=True, text=True, check=False)
    folders = [Path(line.removeprefix("worktree ")) for line in listed.stdout.splitlines() if line[:9] == "worktree "]
    others = [folder for folder in folders if folder.resolve() != Path().resolve() and (folder / ".dvc").is_dir()]
    return [str(folder) for folder in others if Path(_dvc("cache", "dir", cwd=folder).strip()).resolve() == cache]


def _dvc(*words: str, cwd: Path = Path()) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=cwd,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise CacheRefused(f"`dvc {' '.join(words[:2])}` failed in {cwd.absolute()}: {last}")
    return done.stdout
