"""Removes from DVC's cache what neither git nor a kept run names, by DVC's own gc."""

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
# A person named the branches, tags and experiments: their objects stay, whatever their age.
_KEPT_REFERENCES = ("--workspace", "--all-branches", "--all-tags", "--all-experiments")
# Checked, since tags in MLflow may hold anything, even a path.
_MD5 = re.compile(r"[0-9a-f]{32}(?:\.dir)?")
_REMOVED = re.compile(r"Removed (\d+) objects from local cache")


class CacheRefused(RuntimeError):
    """DVC's gc failed, or its roots could not be made."""


def collect(revisions: Collection[str], hashes: Collection[str], dry: bool, say: Say) -> None:
    """Remove, or with `dry` count, the objects of DVC's cache that nothing names.

    Kept are the objects of this folder, of every branch, tag and experiment, of other worktrees of this repository
    that share the cache, of git's `revisions`, and `hashes` (md5s in the tags of kept runs: no revision names those of
    a dirty tree). Raises CacheRefused.
    """
    if not Path(".dvc").is_dir():
        say("no DVC repository here, so no cache of its to look at")
        return
    cache = Path(_run_dvc("cache", "dir").strip()).resolve()
    if not cache.is_relative_to(Path().resolve()):
        say(f"DVC's cache is {cache}, outside this folder: others may use it, so its gc is left to you (`dvc gc`)")
        return
    if not cache.exists():
        return
    kept = set(hashes).union(*(_hashes_of(revision) for revision in revisions if REVISION.fullmatch(revision)))
    _create_roots(cache, kept)
    projects = [str(ROOTS), *_other_worktrees(cache)]
    output = _run_dvc("gc", *_KEPT_REFERENCES, "--force", *(["--dry"] if dry else []), "--projects", *projects)
    shutil.rmtree(ROOTS)
    match = _REMOVED.search(output)
    number = match[1] if match else "0"
    say(f"DVC's cache: {number} objects {'go' if dry else 'are gone'} that nothing which stays names")


def _hashes_of(revision: str) -> set[str]:
    """The md5 of every output in the dvc.lock of a revision; none where git no longer has it."""
    process = subprocess.run(["git", "show", f"{revision}:./dvc.lock"], capture_output=True, check=False)
    if process.returncode:
        return set()
    stages = (yaml.safe_load(process.stdout) or {}).get("stages", {})
    return {out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def _create_roots(cache: Path, hashes: Collection[str]) -> None:
    """Create a DVC project that needs these hashes and nothing else: DVC's gc keeps what other projects need.

    It is a git repository too, since DVC looks for branches in every project.
    """
    shutil.rmtree(ROOTS, ignore_errors=True)
    (ROOTS / ".dvc").mkdir(parents=True)
    (ROOTS / ".dvc" / "config").write_text(f"[cache]\n    dir = {cache}\n")
    identity = ("-c", "user.name=Convoy", "-c", "user.email=convoy@localhost", "-c", "commit.gpgsign=false")
    for arguments in (("init", "--quiet"), (*identity, "commit", "--quiet", "--allow-empty", "--message", "nothing")):
        process = subprocess.run(["git", *arguments], cwd=ROOTS, capture_output=True, text=True, check=False)
        if process.returncode:
            raise CacheRefused(f"git failed in {ROOTS}: {process.stderr.strip()}")
    for md5 in sorted(filter(_MD5.fullmatch, hashes)):
        if _object_path(cache, md5).exists():
            out = {"md5": md5, "hash": "md5", "path": md5}
            (ROOTS / f"{md5}.dvc").write_text(yaml.safe_dump({"outs": [out]}))


def _object_path(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _other_worktrees(cache: Path) -> list[str]:
    """Other worktrees of this repository whose DVC uses the same cache."""
    process = subprocess.run(["git", "worktree", "list", "--porcelain"], capture_output=True, text=True, check=False)
    folders = [Path(line.removeprefix("worktree ")) for line in process.stdout.splitlines() if line[:9] == "worktree "]
    others = [folder for folder in folders if folder.resolve() != Path().resolve() and (folder / ".dvc").is_dir()]
    return [str(folder) for folder in others if Path(_run_dvc("cache", "dir", cwd=folder).strip()).resolve() == cache]


def _run_dvc(*arguments: str, cwd: Path = Path()) -> str:
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=cwd,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        last = (process.stderr.strip() or "no word").splitlines()[-1]
        raise CacheRefused(f"`dvc {' '.join(arguments[:2])}` failed in {cwd.absolute()}: {last}")
    return process.stdout
