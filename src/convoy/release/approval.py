"""A person's request -> the grounds to record; a reason is needed where something stands against the model."""

from dataclasses import dataclass, field

from convoy.core.paths import DEPLOYED
from convoy.release import deployment, journal
from convoy.release.decision import Grounds, History, Kind, Model
from convoy.tracking import provenance

SERVICE_FOLLOWS = "a service that is running here follows by itself, within seconds"


class ApprovalRefused(ValueError):
    """A request needs a reason, has no target, or came second; the deployed model has not changed."""


@dataclass(frozen=True)
class MlflowView:
    """What MLflow shows of a version: the figures of its gates, and a refusal that the history here lacks."""

    refusal: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    gate_report: str | None = None


_EMPTY_VIEW = MlflowView()


def current_link(task: str) -> str:
    """The path of the deployed model, as messages name it."""
    return f"{DEPLOYED / task / deployment.CURRENT}"


def refuse_if_deployed_changed(task: str, model: Model, seen_digest: str | None) -> None:
    """Of two simultaneous decisions the first wins; the second, made when `seen_digest` was deployed, is recorded.

    Raises ApprovalRefused, except where the first decision has deployed the same model.
    """
    deployed = journal.deployed_model(task)
    if seen_digest == (deployed.digest if deployed else None):
        return
    last_change = journal.read_history(task).changes[-1:]
    why = "while this was asked for, another was decided" + (f": {last_change[0].told}" if last_change else "")
    journal.append(task, deployed, model, Grounds("superseded", why, revision=provenance.revision()))
    if deployed is None or deployed.digest != model.digest:
        raise ApprovalRefused(f"{model} was not let serve: {why}. Ask again, if that is still what you want")


def grounds_for(history: History, model: Model, kind: Kind, reason: str, view: MlflowView = _EMPTY_VIEW) -> Grounds:
    """The grounds to record. An objection to a model makes them `forced`; without a reason raises ApprovalRefused."""
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
