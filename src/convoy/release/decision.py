"""What a line of the history says: a decision on who serves, or what became of one."""

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


def now() -> str:
    """This moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def who() -> str:
    """user@host, and in CI who set it off."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    here = f"{user}@{socket.gethostname()}"
    actor = next((os.environ[name] for name in _ACTORS if os.environ.get(name)), None)
    return f"{actor} by {here}" if actor else here
