"""A person's word -> who serves: a promotion, recorded with who said it, and why where that is asked for."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy.core.progress import Say
from convoy.layout import Task
from convoy.publishing import champions, decisions, deployment, gate_reports, promotion, registry, showing
from convoy.publishing.asked import FOLLOWS, Shown, judge, place, refuse_second
from convoy.publishing.decision import Model


def promote(client: MlflowClient, say: Say, task: Task, number: str | None, reason: str, seen: str | None) -> None:
    """Let a version serve; without a number the challenger. `seen` is the digest that served when it was asked for.

    The caller holds locks.hold_deployed(). Raises NotAsAsked, VersionUnknown and BundleInvalid.
    """
    showing.bring_back(client, task, say)
    if promotion.settle(task, say):
        seen = deployment.current_digest(task)
    version = _chosen(client, task, number)
    asked = Model(version=str(version.version), digest=registry.digest_of_version(version))
    try:
        refuse_second(task, asked, seen)
        if deployment.current_digest(task) == asked.digest:
            champions.align(client, task, version)
            say(f"{version.name} version {version.version} serves from {place(task)}, as it did before")
            return
        grounds = judge(decisions.read_history(task), asked, "promotion", reason, _shown(version))
        champions.serve(client, task, version, grounds)
        say(f"{version.name} version {version.version} serves from {place(task)}")
        say(FOLLOWS)
    finally:
        showing.show(client, task)


def _chosen(client: MlflowClient, task: Task, number: str | None) -> ModelVersion:
    if number is not None:
        return registry.get_version(client, task, number)
    version = registry.version_with(client, task, "challenger")
    if version is None:
        raise registry.VersionUnknown(
            f"{registry.model_name(task)} has no challenger; name a version with --version, or run "
            "`python -m convoy publish` first"
        )
    return version


def _shown(version: ModelVersion) -> Shown:
    tag, outcome = version.tags.get(showing.DECISION, ""), version.tags.get(gate_reports.OUTCOME)
    refusal = tag if tag.startswith(("refused", "refusal")) else ""
    return Shown(refusal, {"gates": outcome} if outcome else {}, version.tags.get(gate_reports.REPORT))


def show(client: MlflowClient, task: Task) -> None:
    """Bring MLflow in line after what was decided without it, and the release with the number that MLflow knows."""
    digest = deployment.current_digest(task)
    version = registry.find_version(client, task, digest) if digest else None
    if version is not None:
        champions.align(client, task, version)
    showing.show(client, task)
