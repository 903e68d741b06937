"""Migrates a bundle of an older format to today's: the same answers, and a list of what it cannot do."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convoy.bundles.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    RELEASE,
    BundleInvalid,
    Card,
    Sets,
    digest_of,
    read_file,
    read_release,
    write_bundle,
)
from convoy.bundles.predictor import Predictor
from convoy.core import atomic
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.release import decision, deployment, journal
from convoy.tracking import provenance

Contents = dict[str, Any]
# A card must have a coverage; with n = 0 it promises nothing, and the service gives no sets.
_NO_SETS = Sets(coverage=0.95, threshold=0.0, n=0)


class MigrationRefused(RuntimeError):
    """A bundle that this release cannot migrate, or a target that exists."""


def _migrate_from_1(card: Contents) -> tuple[Contents, list[str]]:
    """Format 1 had no temperature (that is, 1), and no calibration for prediction sets."""
    limitations = ["it cannot give prediction sets (/v1/*/sets say so): its thresholds were never calibrated"]
    return {**card, "format_version": 2, "temperature": 1.0, "sets": _NO_SETS.model_dump()}, limitations


_MIGRATIONS: dict[int, Callable[[Contents], tuple[Contents, list[str]]]] = {1: _migrate_from_1}


def migrate(folder: Path, target: Path | None, say: Say) -> None:
    """Write today's form of the bundle in `folder` to `target`, or beside it in deployed/, where it takes its place.

    The bundle in `folder` stays; of one that has today's form nothing is written. Raises BundleInvalid where it is
    damaged or, once migrated, does not reproduce its own examples; MigrationRefused. The caller holds
    locks.hold_deployed().
    """
    if not folder.is_dir():
        raise BundleInvalid(f"{folder} is no folder; name that of a bundle, as {DEPLOYED}/<task>/current")
    if target is not None and target.exists():
        raise MigrationRefused(f"{target} exists; name a new folder with --into, or remove it")
    content, files = _read_proven(folder)
    if content["format_version"] == FORMAT_VERSION:
        say(f"{folder} has format {FORMAT_VERSION}, today's; nothing to do")
        return
    card, limitations = _migrate_card(content, folder)
    task = _deployed_task(folder)
    if target is None and task is None:
        raise MigrationRefused(f"{folder} is not below {DEPLOYED}/<task>/; say with --into where today's form goes")
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary, "bundle")
        digest = write_bundle(bundle, card, files)
        Predictor(bundle)
        if target is not None:
            write_bundle(target, card, files)
        elif task is not None:
            target = _deploy(task, folder, bundle, digest, say)
    say(f"{folder} -> {target}: format {card.format_version}, digest {digest[:12]}; it reproduces its examples")
    for limitation in limitations:
        say(f"  {limitation}")


def _deployed_task(folder: Path) -> str | None:
    parent = folder.resolve().parent
    return parent.name if parent.parent == DEPLOYED.resolve() else None


def _deploy(task: str, folder: Path, bundle: Path, digest: str, say: Say) -> Path:
    """Deploy the new form beside the old one; where the old one is current, the new one becomes so, by a decision."""
    release = read_release(folder)
    if release is None:
        raise MigrationRefused(f"{folder / RELEASE} is missing, so nobody knows which version it is; promote again")
    old = os.path.basename(folder.resolve())
    release = release.model_copy(update={"digest": digest})
    journal.finish_interrupted(task, say)
    is_current = deployment.current_digest(task) == old
    if is_current:
        release = release.model_copy(update={"promoted_at": decision.utc_now()})
    deployment.copy_bundle(task, bundle, release)
    if is_current:
        reason = f"format {FORMAT_VERSION} of the same model; it reproduces the examples"
        journal.decide(task, release, decision.Grounds("migration", reason, revision=provenance.revision()))
    return deployment.folder_of(task, digest)


def _migrate_card(content: Contents, folder: Path) -> tuple[Card, list[str]]:
    """Today's card of an old one, and the limitations of its model."""
    version, limitations = content["format_version"], list[str]()
    while content["format_version"] in _MIGRATIONS:
        content, added = _MIGRATIONS[content["format_version"]](content)
        limitations += added
    if content["format_version"] != FORMAT_VERSION:
        raise MigrationRefused(
            f"{folder} has format {version!r}, this release migrates {', '.join(map(str, _MIGRATIONS))} to "
            f"{FORMAT_VERSION}; a newer format wants a newer release of Convoy"
        )
    try:
        return Card.model_validate_json(atomic.to_json(content)), limitations
    except ValidationError as error:
        raise BundleInvalid(f"{folder / 'card.json'} is not a card of format {version}: {error}") from None


def _read_proven(folder: Path) -> tuple[Contents, dict[str, bytes]]:
    """What the card of a bundle says, and its other files, each as the manifest proves it. Raises BundleInvalid."""
    try:
        digest, names = digest_of(folder), json.loads((folder / MANIFEST).read_bytes())
        files = {name: read_file(folder, name, digest) or b"" for name in names if os.path.basename(name) == name}
        content: Contents = json.loads(files.pop("card.json"))
        return content | {"format_version": content["format_version"]}, files
    except BundleInvalid:
        raise
    except FileNotFoundError as error:
        raise BundleInvalid(f"{error.filename} is missing: {folder} is no whole bundle") from None
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BundleInvalid(f"{folder}: manifest or card cannot be read ({error}); export the bundle again") from None
