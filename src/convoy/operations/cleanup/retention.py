"""What must stay, and why: deployed models, aliases, history; and what may go by age and number."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from pydantic import Field

from convoy.bundles.bundle import BundleInvalid, read_release
from convoy.core.params import Section
from convoy.core.paths import DEPLOYED, Task
from convoy.release import deployment, journal
from convoy.tracking import registry

# A service reads the folder that `current` led to a moment before; it looks every second and loads within a few.
GRACE_S = 60
_DIGEST = re.compile(r"[0-9a-f]{64}")

Kind = Literal["bundle", "version", "run", "training"]


def kept_digests(client: MlflowClient, task: Task, days: int, now: datetime) -> dict[str, str]:
    """Digest -> why it stays, the strongest reason first found. Raises decisions.DecisionsBroken."""
    found: dict[str, str] = {}
    current = deployment.current_digest(task)
    if current:
        found[current] = "it serves"
    for alias, why in (("champion", "the champion"), ("challenger", "a challenger that waits")):
        version = registry.version_with(client, task, alias)  # type: ignore[arg-type]
        if version is not None:
            found.setdefault(registry.digest_of_version(version), why)
    for digest in _before(task, current):
        found.setdefault(digest, "it served before; a rollback goes back to it")
    for digest in journal.digests_named(task, now - timedelta(days=days)):
        found.setdefault(digest, f"a decision of the last {days} days names it")
    return found


def is_settling(task: Task) -> bool:
    """Whether what serves has changed so lately that a service may still read the folder of before."""
    link = DEPLOYED / task / deployment.CURRENT
    return link.is_symlink() and time.time() - link.lstat().st_mtime < GRACE_S


def deployed_bundles(task: Task) -> list[tuple[Path, datetime]]:
    """The deployed bundles, each with the time of its promotion, or of its making where its release is broken.

    The last promoted comes last.
    """
    folders = [path for path in (DEPLOYED / task).glob("*") if _DIGEST.fullmatch(path.name) and path.is_dir()]
    found = [(folder, _promoted_at(folder)) for folder in folders]
    return sorted(found, key=lambda each: (each[1], each[0].stat().st_mtime_ns))  # promotions are told to the second


def _promoted_at(folder: Path) -> datetime:
    made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    try:
        release = read_release(folder)
        at = datetime.fromisoformat(release.promoted_at) if release else made
    except (BundleInvalid, ValueError):
        return made
    return in_utc(at)


def in_utc(at: datetime) -> datetime:
    """A time that names no zone is one of UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _before(task: Task, current: str | None) -> set[str]:
    """What served before the champion: by the history, and by the releases, since the history may be younger."""
    others = [folder.name for folder, _ in deployed_bundles(task) if folder.name != current]
    before = journal.read_history(task).one_before
    return set(others[-1:]) | ({before.digest} if before else set())


class KeepParams(Section):
    """The section `keep` of params.yaml."""

    days: int = Field(ge=1)
    bundles: int = Field(ge=1)
    versions: int = Field(ge=1)
    runs: int = Field(ge=0)
    training_days: int = Field(ge=1)


@dataclass(frozen=True)
class Removable:
    """Something that takes space: a deployed bundle, a registered version, a run, or an unfinished training."""

    kind: Kind
    name: str
    key: str  # what it is found by: a folder, a version's number, a run's id
    size: int  # in bytes
    at: datetime  # when it was made or last used
    protected: str = ""  # why it must not go, whatever its age; empty where nothing speaks for it


@dataclass(frozen=True)
class Verdict:
    """A thing, whether it goes, and why."""

    thing: Removable
    goes: bool
    why: str


class ClockSuspicious(RuntimeError):
    """By this machine's clock everything that was ever recorded is old, or not yet made."""


# How far the clocks of a machine and of an MLflow that it writes to may differ; as much as Kerberos lets them.
CLOCK_SKEW = timedelta(minutes=5)


def check_clock(newest: datetime | None, days: int, now: datetime) -> None:
    """Refuse to judge by age where `now` is before the newest record, or more than `days` after it: ClockSuspicious.

    More than `days` after the newest of all records nothing is young any more, so a clock that has jumped ahead lets
    all go that age alone keeps. A project that has rested so long looks the same: then a person says so.
    """
    if newest is None or now - timedelta(days=days) <= newest <= now + CLOCK_SKEW:
        return
    told = f"{newest:%Y-%m-%d %H:%M} UTC"
    where = f"over {days} days after" if newest < now else "before"
    raise ClockSuspicious(
        f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, {where} the newest record of all ({told}); nothing was "
        "removed. Set the clock (`timedatectl`), or, where it is right, add --clock-is-right"
    )


def judge(things: Sequence[Removable], newest: int, days: int, now: datetime) -> list[Verdict]:
    """Newest first: a thing goes that nothing protects, that is none of the `newest` and older than `days`."""
    ordered = sorted(things, key=lambda thing: (thing.at, thing.key), reverse=True)
    found = []
    for place, thing in enumerate(ordered):
        if thing.protected:
            found.append(Verdict(thing, False, thing.protected))
        elif place < newest:
            found.append(Verdict(thing, False, f"one of the newest {newest}"))
        elif now - thing.at <= timedelta(days=days):
            found.append(Verdict(thing, False, f"not older than {days} days"))
        else:
            beyond = f"beyond the newest {newest} and " if newest else ""
            found.append(Verdict(thing, True, f"{beyond}older than {days} days"))
    return found
