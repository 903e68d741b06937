"""A decision on which model is deployed, and the history of a task's decisions: who is deployed, and who was."""

import getpass
import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from convoy.core.paths import Task

Kind = Literal["promotion", "forced", "refusal", "rollback", "superseded", "pull", "found", "restored", "migration"]
# What changes who serves. `found`: deployed/ was changed by something that decides nothing, as a copy or a hand;
# `restored`: deployed/ had been lost, and MLflow's champion serves again; `pull`: the registry's, brought here;
# `migration`: the same model in today's format.
CHANGES = ("promotion", "forced", "rollback", "pull", "found", "restored", "migration")
_ACTORS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN")  # who set off a CI job, whose own user says nothing


class Record(BaseModel):
    """What every line says."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    previous: str  # sha256 of the whole line before; empty for the first
    number: int = Field(ge=1)
    at: str  # UTC, ISO 8601
    who: str  # user@host; in CI with who set it off
    why: str


class Model(BaseModel):
    """A model as a decision names it: the digest says which, the version what MLflow called it then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str | None
    digest: str

    def __str__(self) -> str:
        return f"version {self.version} ({self.digest[:12]})" if self.version else f"bundle {self.digest[:12]}"


class Decision(Record):
    """One decision: what served (`from`), what it was about (`to`), and what spoke for it."""

    kind: Kind
    task: Task
    before: Model | None = Field(alias="from")
    after: Model = Field(alias="to")
    figures: dict[str, Any]
    gate_report: str | None  # where the whole report is: a path in MLflow's artifacts of the version's run
    revision: str | None  # git's, of the working tree in which it was decided

    @property
    def told(self) -> str:
        """The decision in one line."""
        before = f" from {self.before}" if self.before else ""
        return f"{self.kind}{before} to {self.after}, {self.at[:16].replace('T', ' ')} UTC by {self.who}: {self.why}"


class Mark(Record):
    """What became of a decision that changes who serves: deployed/ has followed it, or never could."""

    kind: Literal["done", "undone"]
    of: int


@dataclass(frozen=True)
class Grounds:
    """What a decision says beside who is concerned."""

    kind: Kind
    why: str
    figures: dict[str, Any] = field(default_factory=dict)
    gate_report: str | None = None
    revision: str | None = None


def utc_now() -> str:
    """This moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def current_user() -> str:
    """user@host, and in CI who set it off."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    here = f"{user}@{socket.gethostname()}"
    actor = next((os.environ[name] for name in _ACTORS if os.environ.get(name)), None)
    return f"{actor} by {here}" if actor else here


@dataclass(frozen=True)
class History:
    """All that was decided about a task, oldest first."""

    decisions: tuple[Decision, ...] = ()
    marks: tuple[Mark, ...] = ()
    lines: tuple[bytes, ...] = ()  # as they stand in the file
    torn: int = 0  # lines that a kill has cut off: they decided nothing, and stay where they are

    @property
    def unfinished(self) -> Decision | None:
        """The last change, where deployed/ may not have followed it yet."""
        changes = [decision for decision in self.decisions if decision.kind in CHANGES]
        marked = {mark.of for mark in self.marks}
        if not changes or changes[-1].kind == "found" or changes[-1].number in marked:
            return None
        return changes[-1]

    @property
    def undone(self) -> set[int]:
        """Numbers of the decisions that deployed/ could not follow."""
        return {mark.of for mark in self.marks if mark.kind == "undone"}

    @property
    def changes(self) -> list[Decision]:
        """The decisions that changed who serves."""
        return [each for each in self.decisions if each.kind in CHANGES and each.number not in self.undone]

    @property
    def champion(self) -> Model | None:
        """Who serves by this history."""
        return self.changes[-1].after if self.changes else None

    @property
    def one_before(self) -> Model | None:
        """The champion before this one: a rollback takes the way back, so that a second one goes one further."""
        way: list[Model] = []
        for change in self.changes:
            if change.kind == "migration":  # the same model, which loads no more as it was
                left = change.before and change.before.digest
                way = [change.after if model.digest == left else model for model in way]
            elif not way and change.before is not None:
                way.append(change.before)
            digests = [model.digest for model in way]
            if change.kind == "rollback" and change.after.digest in digests:
                way = way[: len(way) - digests[::-1].index(change.after.digest)]
            elif not way or way[-1].digest != change.after.digest:
                way.append(change.after)
        return way[-2] if len(way) > 1 else None

    def about(self, digest: str) -> Decision | None:
        """The last decision on a model: for it, against it, or one by which it stopped serving."""
        counted = [each for each in self.decisions if each.kind != "superseded" and each.number not in self.undone]
        return next((each for each in reversed(counted) if _concerns(each, digest)), None)

    def against(self, digest: str) -> Decision | None:
        """What stands against a model: the gates' refusal or a rollback, where nothing was decided on it since."""
        last = self.about(digest)
        if last is None or last.kind not in ("refusal", "rollback"):
            return None
        return last if last.kind == "refusal" or last.after.digest != digest else None

    def has_served(self, digest: str) -> bool:
        """Whether a model ever served by this history."""
        return any(digest in (each.after.digest, each.before and each.before.digest) for each in self.changes)


def _concerns(decision: Decision, digest: str) -> bool:
    left = decision.kind in CHANGES and decision.before is not None and decision.before.digest == digest
    return left or decision.after.digest == digest
