"""Things with their age and what protects them -> which of them stay and which go, each with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from convoy.core.params import Section

Kind = Literal["bundle", "version", "run", "training"]


class KeepParams(Section):
    """The section `keep` of params.yaml."""

    days: int = Field(ge=1)
    bundles: int = Field(ge=1)
    versions: int = Field(ge=1)
    runs: int = Field(ge=0)
    training_days: int = Field(ge=1)


@dataclass(frozen=True)
class Thing:
    """Something that takes space: a deployed bundle, a registered version, a run, or an unfinished training."""

    kind: Kind
    name: str
    key: str  # what it is found by: a folder, a version's number, a run's id
    size: int  # in bytes
    at: datetime  # when it was made or last used
    protected: str = ""  # why it must not go, whatever its age; empty where nothing speaks for it


@dataclass(frozen=True)
class Judged:
    """A thing, whether it goes, and why."""

    thing: Thing
    goes: bool
    why: str


class ClockDoubtful(RuntimeError):
    """By this machine's clock everything that was ever recorded is old, or not yet made."""


# How far the clocks of a machine and of an MLflow that it writes to may differ; as much as Kerberos lets them.
CLOCK_SKEW = timedelta(minutes=5)


def check_clock(newest: datetime | None, days: int, now: datetime) -> None:
    """Refuse to judge by age where `now` is before the newest record, or more than `days` after it: ClockDoubtful.

    More than `days` after the newest of all records nothing is young any more, so a clock that has jumped ahead lets
    all go that age alone keeps. A project that has rested so long looks the same: then a person says so.
    """
    if newest is None or now - timedelta(days=days) <= newest <= now + CLOCK_SKEW:
        return
    told = f"{newest:%Y-%m-%d %H:%M} UTC"
    where = f"over {days} days after" if newest < now else "before"
    raise ClockDoubtful(
        f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, {where} the newest record of all ({told}); nothing was "
        "removed. Set the clock (`timedatectl`), or, where it is right, add --clock-is-right"
    )


def judge(things: Sequence[Thing], newest: int, days: int, now: datetime) -> list[Judged]:
    """Newest first: a thing goes that nothing protects, that is none of the `newest` and older than `days`."""
    ordered = sorted(things, key=lambda thing: (thing.at, thing.key), reverse=True)
    found = []
    for place, thing in enumerate(ordered):
        if thing.protected:
            found.append(Judged(thing, False, thing.protected))
        elif place < newest:
            found.append(Judged(thing, False, f"one of the newest {newest}"))
        elif now - thing.at <= timedelta(days=days):
            found.append(Judged(thing, False, f"not older than {days} days"))
        else:
            beyond = f"beyond the newest {newest} and " if newest else ""
            found.append(Judged(thing, True, f"{beyond}older than {days} days"))
    return found
