"""What a person asks for -> the grounds that are recorded: with a reason where something stands against the model."""

from dataclasses import dataclass, field

from convoy.core.paths import DEPLOYED, Task
from convoy.release import deployment, journal
from convoy.release.decision import Grounds, History, Kind, Model
from convoy.tracking import provenance

SERVICE_FOLLOWS = "a service that is running here follows by itself, within seconds"


class ApprovalRefused(ValueError):
    """What a person asked for needs a reason, goes nowhere, or came second; who serves has not changed."""


@dataclass(frozen=True)
class MlflowView:
    """What MLflow shows of a version: what its gates said, and a refusal that no history here knows of."""

    refusal: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    gate_report: str | None = None


NO_VIEW = MlflowView()


def current_link(task: Task) -> str:
    """Where what serves stands, as it is told."""
    return f"{DEPLOYED / task / deployment.CURRENT}"


def refuse_second(task: Task, asked: Model, seen: str | None) -> None:
    """Of two who decide at once the first wins: the second saw another digest serve, `seen`, and is recorded.

    Raises ApprovalRefused, except where what was asked for serves by the other's word.
    """
    before = journal.deployed_model(task)
    if seen == (before.digest if before else None):
        return
    last = journal.read_history(task).changes[-1:]
    why = "while this was asked for, another was decided" + (f": {last[0].told}" if last else "")
    journal.append(task, before, asked, Grounds("superseded", why, revision=provenance.revision()))
    if before is None or before.digest != asked.digest:
        raise ApprovalRefused(f"{asked} was not let serve: {why}. Ask again, if that is still what you want")


def grounds_for(history: History, asked: Model, kind: Kind, reason: str, shown: MlflowView = NO_VIEW) -> Grounds:
    """The grounds to record. What stands against a model makes it `forced`; without a reason raises ApprovalRefused."""
    against = history.against(asked.digest)
    standing = against.told if against else shown.refusal
    if standing and not reason:
        raise ApprovalRefused(f"{asked} needs --reason '...', which the history keeps; against it stands: {standing}")
    figures = {**(against.figures if against else {}), **({"against": standing} if standing else shown.figures)}
    return Grounds(
        "forced" if standing else kind,
        reason or "asked for by hand, without a reason",
        figures,
        against.gate_report if against else shown.gate_report,
        provenance.revision(),
    )
