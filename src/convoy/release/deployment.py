"""The only writer of deployed/: a bundle is copied, proven and only then served, in one step."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from convoy.bundles.bundle import MANIFEST, RELEASE, Anchor, BundleInvalid, Release, read_bundle, read_release
from convoy.bundles.predictor import Predictor
from convoy.core import atomic
from convoy.core.paths import DEPLOYED, Task

CURRENT = "current"


def folder_of(task: Task, digest: str) -> Path:
    """Where a bundle with this digest is, or would be, deployed."""
    return DEPLOYED / task / digest


def current_digest(task: Task) -> str | None:
    """The digest that serves now, whether or not its folder is whole; None where nothing is deployed."""
    link = DEPLOYED / task / CURRENT
    return os.readlink(link) if link.is_symlink() else None


def read_history_anchor(task: Task) -> Anchor | None:
    """How far the history had come, by the release of the deployed model; None where that does not say."""
    digest = current_digest(task)
    known = _read_release(folder_of(task, digest)) if digest else None
    return known.history if known else None


def write_history_anchor(task: Task, anchor: Anchor) -> None:
    """Write to the release of the deployed model how far the history has come. The caller holds hold_deployed()."""
    digest = current_digest(task)
    if digest is None:
        return
    folder = folder_of(task, digest)
    known = _read_release(folder)
    if known is None or known.history == anchor:
        return
    times = folder.stat()
    _write_release(folder, known.model_copy(update={"history": anchor}))
    with suppress(PermissionError):  # another user's folder: services load the same model again, which does no harm
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))  # services load again what has a new time


def deploy(task: Task, source: Path, release: Release) -> bool:
    """Bring a bundle to deployed/ and let it serve; says whether anything changed.

    A kill at any step leaves what served before, or the new one, whole. Raises BundleInvalid for a bundle that is not
    the one of the release, or that does not reproduce its own examples.
    """
    copied = put(task, source, release)
    return switch(task, release.digest) or copied


def put(task: Task, source: Path, release: Release) -> bool:
    """Copy and prove a bundle without letting it serve; one that is there already gets its release brought in line."""
    _sweep(task)
    _refuse_foreign(task)
    folder = folder_of(task, release.digest)
    if _is_whole(folder, release.digest):
        return _put_release(folder, release)
    with atomic.new_folder(folder) as temporary:
        for name in [*read_bundle(source).files, MANIFEST]:
            shutil.copyfile(source / name, temporary / name)
        digest = Predictor(temporary).digest
        if digest != release.digest:
            raise BundleInvalid(f"{source} has the digest {digest}, the release names {release.digest}")
        (temporary / RELEASE).write_bytes(_json(release))
    return True


def switch(task: Task, digest: str) -> bool:
    """Let `digest` serve: the link `current` changes in one step; says whether it did."""
    if current_digest(task) == digest:
        return False
    _refuse_foreign(task)
    link = DEPLOYED / task / CURRENT
    temporary = link.with_name(f".{CURRENT}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(digest)
    temporary.replace(link)
    atomic.sync(link.parent)
    return True


def _refuse_foreign(task: Task) -> None:
    link = DEPLOYED / task / CURRENT
    if link.exists() and not link.is_symlink():
        raise BundleInvalid(f"{link} is not the link that Convoy makes; move it away and promote again")


def is_whole(task: Task, digest: str) -> bool:
    """Whether the bundle with this digest lies in deployed/ as it should."""
    return _is_whole(folder_of(task, digest), digest)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return read_bundle(folder).digest == digest
    except BundleInvalid:
        return False


def _put_release(folder: Path, release: Release) -> bool:
    """Bring a release in line. How far the history had come is not the caller's to say: that stays."""
    known = _read_release(folder)
    if known is not None:
        release = release.model_copy(update={"history": known.history})
    if known == release:
        return False
    _write_release(folder, release)
    return True


def _write_release(folder: Path, release: Release) -> None:
    """In one step. Written outside the folder first: with a temporary file in it, a service would refuse the bundle."""
    beside = folder.with_name(f".{folder.name}.{RELEASE}")
    atomic.write_bytes(beside, _json(release))
    beside.replace(folder / RELEASE)
    atomic.sync(folder)


def _read_release(folder: Path) -> Release | None:
    """None too where it is broken: then it is written again."""
    try:
        return read_release(folder)
    except BundleInvalid:
        return None


def _json(release: Release) -> bytes:
    history = {"history": release.history.model_dump()} if release.history else {}
    return atomic.to_json({**release.model_dump(mode="json"), **history})


def _sweep(task: Task) -> None:
    """Remove what a killed promotion left half done; the caller holds the lock, so nobody is writing."""
    for leftover in (DEPLOYED / task).glob(".*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
