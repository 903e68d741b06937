"""Things with their age and what protects them -> which of them stay and which go, each with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from convoy.params import Section

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
