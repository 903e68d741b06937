"""A decision on which model is deployed, and the history of a task's decisions: the champion, and those before."""

import getpass
import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from convoy.tracking import provenance

Kind = Literal[
    "promotion",
    "forced",
    "refusal",
    "rollback",
    "superseded",
    "pull",
    "found",
    "restored",
    "migration",
    "withdrawn",
]
# The kinds that change the deployed model. `found`: deployed/ was changed without a decision, by a copy or by hand;
# `pull`: the registry's champion is deployed on this machine, by `pull`, or by `publish` where nothing was deployed
# (`restored` in older histories); `migration`: the same model in the present format; `withdrawn`: nothing is deployed.
CHANGES = ("promotion", "forced", "rollback", "pull", "found", "restored", "migration", "withdrawn")
_ACTOR_VARIABLES = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN")  # who started a CI job, whose own user says nothing


class ApprovalRefused(ValueError):
    """A request needs a reason, has no target, or came second; the deployed model has not changed."""


class Record(BaseModel):
    """The fields of every line."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    previous: str  # sha256 of the whole line before; empty for the first
    number: int = Field(ge=1)
    at: str  # UTC, ISO 8601
    who: str  # user@host; in CI with who set it off
    why: str


class Model(BaseModel):
    """A model as a decision names it: its digest, and the version that MLflow gave it then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str | None
    digest: str

    def __str__(self) -> str:
        return f"version {self.version} ({self.digest[:12]})" if self.version else f"bundle {self.digest[:12]}"


class Decision(Record):
    """One decision: the model deployed before (`from`), the model it is about (`to`), and its grounds.

    A withdrawal is about the model that was deployed before.
    """

    kind: Kind
    task: str
    before: Model | None = Field(alias="from")
    after: Model = Field(alias="to")
    figures: dict[str, Any]
    gate_report: str | None  # where the whole report is: a path in MLflow's artifacts of the version's run
    revision: str | None  # git's, of the working tree in which it was decided

    @property
    def told(self) -> str:
        """The decision in one line."""
        before = f" from {self.before}" if self.before else ""
        models = f" of {self.before}" if self.kind == "withdrawn" else f"{before} to {self.after}"
        return f"{self.kind}{models}, {self.at[:16].replace('T', ' ')} UTC by {self.who}: {self.why}"


class Mark(Record):
    """The outcome of a decision that changes the deployed model: deployed/ has followed it, or never could."""

    kind: Literal["done", "undone"]
    of: int


@dataclass(frozen=True)
class Grounds:
    """The content of a decision without its models."""

    kind: Kind
    why: str
    figures: dict[str, Any] = field(default_factory=dict)
    gate_report: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class MlflowView:
    """What MLflow shows of a version: the figures of its gates, and a refusal that the history here lacks."""

    refusal: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    gate_report: str | None = None


_EMPTY_VIEW = MlflowView()


def utc_now() -> str:
    """This moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def current_user() -> str:
    """user@host, and in CI who set it off."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    user_at_host = f"{user}@{socket.gethostname()}"
    actor = next((os.environ[name] for name in _ACTOR_VARIABLES if os.environ.get(name)), None)
    return f"{actor} by {user_at_host}" if actor else user_at_host


@dataclass(frozen=True)
class History:
    """All that was decided about a task, oldest first."""

    decisions: tuple[Decision, ...] = ()
    marks: tuple[Mark, ...] = ()
    lines: tuple[bytes, ...] = ()  # as they stand in the file
    torn: int = 0  # lines that a kill has cut off: they decide nothing, and stay in the file

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
        """The decisions that changed the deployed model."""
        return [
            decision for decision in self.decisions if decision.kind in CHANGES and decision.number not in self.undone
        ]

    @property
    def champion(self) -> Model | None:
        """The deployed model by this history; None where none was, or the last one was withdrawn."""
        return self.changes[-1].after if self.changes and not self.is_withdrawn else None

    @property
    def is_withdrawn(self) -> bool:
        """Whether the last change withdrew the deployed model."""
        return bool(self.changes) and self.changes[-1].kind == "withdrawn"

    @property
    def one_before(self) -> Model | None:
        """The champion before this one: a rollback returns along the chain, so that a second one goes one further.

        After a withdrawal it is the model that was withdrawn.
        """
        chain: list[Model] = []
        for change in self.changes:
            if change.kind == "migration":  # the same model, which no longer loads in its old format
                left_digest = change.before and change.before.digest
                chain = [change.after if model.digest == left_digest else model for model in chain]
            elif not chain and change.before is not None:
                chain.append(change.before)
            digests = [model.digest for model in chain]
            if change.kind == "rollback" and change.after.digest in digests:
                chain = chain[: len(chain) - digests[::-1].index(change.after.digest)]
            elif not chain or chain[-1].digest != change.after.digest:
                chain.append(change.after)
        if self.is_withdrawn:
            return chain[-1]
        return chain[-2] if len(chain) > 1 else None

    def about(self, digest: str) -> Decision | None:
        """The last decision on a model: for it, against it, or one that replaced it."""
        for decision in reversed(self.decisions):
            if decision.kind != "superseded" and decision.number not in self.undone and _concerns(decision, digest):
                return decision
        return None

    def against(self, digest: str) -> Decision | None:
        """What stands against a model: the gates' refusal or a rollback, where nothing was decided on it since."""
        last = self.about(digest)
        if last is None or last.kind not in ("refusal", "rollback"):
            return None
        return last if last.kind == "refusal" or last.after.digest != digest else None

    def has_served(self, digest: str) -> bool:
        """Whether a model was ever deployed by this history."""
        return any(digest in (change.after.digest, change.before and change.before.digest) for change in self.changes)


def grounds_for(history: History, model: Model, kind: Kind, reason: str, view: MlflowView = _EMPTY_VIEW) -> Grounds:
    """The grounds to record of a person's request. An objection to the model makes them `forced`.

    Raises ApprovalRefused where one stands against it and no reason is given.
    """
    decision = history.against(model.digest)
    objection = decision.told if decision else view.refusal
    if objection and not reason:
        raise ApprovalRefused(f"{model} needs --reason '...', which the history keeps; against it stands: {objection}")
    figures = {**(decision.figures if decision else {}), **({"against": objection} if objection else view.figures)}
    return Grounds(
        "forced" if objection else kind,
        reason or "asked for by hand, without a reason",
        figures,
        decision.gate_report if decision else view.gate_report,
        provenance.revision(),
    )


def _concerns(decision: Decision, digest: str) -> bool:
    is_replaced = decision.kind in CHANGES and decision.before is not None and decision.before.digest == digest
    return is_replaced or decision.after.digest == digest
