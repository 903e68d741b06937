"""What stays and why (deployed models, aliases, history), and what goes by age and number."""

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
from convoy.core.paths import DEPLOYED
from convoy.release import deployment, journal
from convoy.tracking import registry

# A service may still read the folder that `current` pointed to: it polls every second and loads within a few.
GRACE_S = 60
# How far the clocks of a machine and of its MLflow server may differ; the tolerance of Kerberos.
CLOCK_SKEW = timedelta(minutes=5)
_DIGEST = re.compile(r"[0-9a-f]{64}")
Kind = Literal["bundle", "version", "run", "training"]


class KeepParams(Section):
    """The section `keep` of release.yaml."""

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
    key: str  # a folder, a version's number or a run's id
    size: int  # in bytes
    at: datetime  # when it was made or last used
    protected: str = ""  # why it stays, whatever its age; empty where it may go


@dataclass(frozen=True)
class Verdict:
    """Whether a thing goes, and why."""

    thing: Removable
    goes: bool
    why: str


class ClockSuspicious(RuntimeError):
    """By this machine's clock all records are old, or lie in the future."""


def kept_digests(client: MlflowClient, task: str, days: int, now: datetime) -> dict[str, str]:
    """Digest -> the strongest reason why it stays. Raises journal.DecisionsBroken."""
    reasons: dict[str, str] = {}
    current = deployment.current_digest(task)
    if current:
        reasons[current] = "it serves"
    for alias, reason in (("champion", "the champion"), ("challenger", "a challenger that waits")):
        version = registry.version_with(client, task, alias)  # type: ignore[arg-type]
        if version is not None:
            reasons.setdefault(registry.digest_of_version(version), reason)
    for digest in _previous_digests(task, current):
        reasons.setdefault(digest, "it served before; a rollback goes back to it")
    for digest in journal.digests_named(task, now - timedelta(days=days)):
        reasons.setdefault(digest, f"a decision of the last {days} days names it")
    return reasons


def _previous_digests(task: str, current: str | None) -> set[str]:
    """The models deployed before the champion: by the history, and by the releases, as the history may be younger."""
    earlier = [folder.name for folder, _ in deployed_bundles(task) if folder.name != current]
    before = journal.read_history(task).one_before
    return set(earlier[-1:]) | ({before.digest} if before else set())


def deployed_bundles(task: str) -> list[tuple[Path, datetime]]:
    """The deployed bundles, each with the time of its promotion, or of its creation where its release is broken.

    The last promoted comes last.
    """
    folders = [path for path in (DEPLOYED / task).glob("*") if _DIGEST.fullmatch(path.name) and path.is_dir()]
    bundles = [(folder, _promoted_at(folder)) for folder in folders]
    return sorted(
        bundles, key=lambda bundle: (bundle[1], bundle[0].stat().st_mtime_ns)
    )  # promotions are recorded to the second


def _promoted_at(folder: Path) -> datetime:
    modified = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    try:
        release = read_release(folder)
        at = datetime.fromisoformat(release.promoted_at) if release else modified
    except (BundleInvalid, ValueError):
        return modified
    return in_utc(at)


def is_settling(task: str) -> bool:
    """Whether the deployed model has changed so recently that a service may still read the previous folder."""
    link = DEPLOYED / task / deployment.CURRENT
    return link.is_symlink() and time.time() - link.lstat().st_mtime < GRACE_S


def in_utc(at: datetime) -> datetime:
    """The time with a zone: UTC where it has none."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def judge(things: Sequence[Removable], newest: int, days: int, now: datetime) -> list[Verdict]:
    """Newest first: a thing goes that is not protected, not among the `newest`, and older than `days`."""
    ordered = sorted(things, key=lambda thing: (thing.at, thing.key), reverse=True)
    verdicts = []
    for rank, thing in enumerate(ordered):
        if thing.protected:
            verdicts.append(Verdict(thing, False, thing.protected))
        elif rank < newest:
            verdicts.append(Verdict(thing, False, f"one of the newest {newest}"))
        elif now - thing.at <= timedelta(days=days):
            verdicts.append(Verdict(thing, False, f"not older than {days} days"))
        else:
            beyond = f"beyond the newest {newest} and " if newest else ""
            verdicts.append(Verdict(thing, True, f"{beyond}older than {days} days"))
    return verdicts


def check_clock(newest: datetime | None, days: int, now: datetime) -> None:
    """Refuse to judge by age where `now` is before the newest record, or more than `days` after it: ClockSuspicious.

    More than `days` after the newest record everything is old, so a clock that has jumped ahead would remove all that
    only its age keeps. A project at rest for so long looks the same: then a person confirms the clock.
    """
    if newest is None or now - timedelta(days=days) <= newest <= now + CLOCK_SKEW:
        return
    newest_text = f"{newest:%Y-%m-%d %H:%M} UTC"
    relation = f"over {days} days after" if newest < now else "before"
    raise ClockSuspicious(
        f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, {relation} the newest record of all ({newest_text}); "
        "nothing was removed. Set the clock (`timedatectl`), or, where it is right, add --clock-is-right"
    )
