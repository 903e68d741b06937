"""The only writer of deployed/: a bundle is copied, verified and only then deployed, in one step."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from convoy.bundles.bundle import MANIFEST, RELEASE, Anchor, BundleInvalid, Release, read_bundle, read_release
from convoy.bundles.predictor import Predictor
from convoy.core import atomic, tasks
from convoy.core.paths import DEPLOYED

CURRENT = "current"
SERVICE_FOLLOWS = "a service that is running here follows by itself, within seconds"


class TaskNameInvalid(ValueError):
    """A name that no task can have, as of a registered model that somebody else made."""


def require_name(task: str) -> None:
    """Raise TaskNameInvalid where no task can have this name."""
    if not tasks.is_name(task):
        raise TaskNameInvalid(
            f"{task[:80]!r} is no name of a task: it has small letters, digits and hyphens, begins with a letter and "
            f"is none of {', '.join(tasks.RESERVED)}"
        )


def folder_of(task: str, digest: str) -> Path:
    """Where a bundle with this digest is, or would be, deployed."""
    return DEPLOYED / task / digest


def current_link(task: str) -> Path:
    """The link to the deployed model."""
    return DEPLOYED / task / CURRENT


def current_digest(task: str) -> str | None:
    """The digest of the deployed model, whether or not its folder is whole; None where nothing is deployed."""
    link = current_link(task)
    return os.readlink(link) if link.is_symlink() else None


def read_history_anchor(task: str) -> Anchor | None:
    """The last line of the history, by the release of the deployed model; None where that does not say."""
    digest = current_digest(task)
    release = _read_release(folder_of(task, digest)) if digest else None
    return release.history if release else None


def write_history_anchor(task: str, anchor: Anchor) -> None:
    """Write the last line of the history to the release of the deployed model. The caller holds hold_deployed()."""
    digest = current_digest(task)
    if digest is None:
        return
    folder = folder_of(task, digest)
    release = _read_release(folder)
    if release is None or release.history == anchor:
        return
    times = folder.stat()
    _write_release(folder, release.model_copy(update={"history": anchor}))
    with suppress(PermissionError):  # another user's folder: services load the same model again, which does no harm
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))  # services reload a folder that has a new time


def deploy(task: str, source: Path, release: Release) -> bool:
    """Copy a bundle to deployed/ and deploy it; returns whether anything changed.

    A kill at any step leaves the former model or the new one, whole. Raises BundleInvalid for a bundle that is not
    the one of the release, or that does not reproduce its own examples.
    """
    changed = copy_bundle(task, source, release)
    return point_current_to(task, release.digest) or changed


def copy_bundle(task: str, source: Path, release: Release) -> bool:
    """Copy and verify a bundle without deploying it; of one that is there already only the release is updated.

    Raises TaskNameInvalid before anything is removed, and BundleInvalid.
    """
    require_name(task)
    _remove_leftovers(task)
    _require_own_link(task)
    folder = folder_of(task, release.digest)
    if _is_whole(folder, release.digest):
        return _update_release(folder, release)
    with atomic.new_folder(folder) as temporary:
        _copy_files(source, temporary)
        digest = Predictor(temporary).digest
        if digest != release.digest:
            raise BundleInvalid(f"{source} has the digest {digest}, the release names {release.digest}")
        (temporary / RELEASE).write_bytes(_release_json(release))
    return True


def point_current_to(task: str, digest: str) -> bool:
    """Deploy `digest`: the link `current` changes in one step; returns whether it did."""
    if current_digest(task) == digest:
        return False
    _require_own_link(task)
    link = current_link(task)
    temporary = link.with_name(f".{CURRENT}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(digest)
    temporary.replace(link)
    atomic.sync(link.parent)
    return True


def rename_releases(task: str, name: str) -> int:
    """Let the releases of all bundles of a task name this registered model; gives how many changed."""
    changed = 0
    for file in sorted((DEPLOYED / task).glob(f"*/{RELEASE}")):
        release = _read_release(file.parent)
        if file.parent.name != CURRENT and release is not None and release.name != name:
            _write_release(file.parent, release.model_copy(update={"name": name}))
            changed += 1
    return changed


def remove_current(task: str) -> None:
    """Deploy nothing: the link `current` is gone; bundles and history stay. The caller holds hold_deployed()."""
    current_link(task).unlink(missing_ok=True)
    atomic.sync(DEPLOYED / task)


def is_whole(task: str, digest: str) -> bool:
    """Whether the bundle with this digest is complete in deployed/."""
    return _is_whole(folder_of(task, digest), digest)


def _require_own_link(task: str) -> None:
    link = current_link(task)
    if link.exists() and not link.is_symlink():
        raise BundleInvalid(f"{link} is not the link that Convoy makes; move it away and promote again")


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return read_bundle(folder).digest == digest
    except BundleInvalid:
        return False


def _copy_files(source: Path, target: Path) -> None:
    """Copy what the manifest names. Raises BundleInvalid where it or a file is missing."""
    try:
        for name in (MANIFEST, *json.loads((source / MANIFEST).read_bytes())):
            shutil.copyfile(source / os.path.basename(name), target / os.path.basename(name))
    except (FileNotFoundError, IsADirectoryError, ValueError, TypeError) as error:
        raise BundleInvalid(f"{source} is no whole bundle ({error}); export it again") from None


def _update_release(folder: Path, release: Release) -> bool:
    """Update a release. Its line of the history stays: the caller does not know it."""
    stored = _read_release(folder)
    if stored is not None:
        release = release.model_copy(update={"history": stored.history})
    if stored == release:
        return False
    _write_release(folder, release)
    return True


def _write_release(folder: Path, release: Release) -> None:
    """Write in one step, outside the folder first: with a temporary file in it, a service would refuse the bundle."""
    temporary = folder.with_name(f".{folder.name}.{RELEASE}")
    atomic.write_bytes(temporary, _release_json(release))
    temporary.replace(folder / RELEASE)
    atomic.sync(folder)


def _read_release(folder: Path) -> Release | None:
    """None also where it is broken: then it is written again."""
    try:
        return read_release(folder)
    except BundleInvalid:
        return None


def _release_json(release: Release) -> bytes:
    history = {"history": release.history.model_dump()} if release.history else {}
    return atomic.to_json({**release.model_dump(mode="json"), **history})


def _remove_leftovers(task: str) -> None:
    """Remove what a killed promotion left behind; the caller holds the lock, so nobody is writing."""
    for leftover in (DEPLOYED / task).glob(".*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
