"""A person's word -> who serves: a promotion, recorded with who said it, and why where that is asked for."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy.core.paths import Task
from convoy.core.progress import Say
from convoy.release import champions, deployment, gate_reports, journal, promotion, registry_sync
from convoy.release.approval import FOLLOWS, Shown, judge, place, refuse_second
from convoy.release.decision import Model
from convoy.tracking import registry


def promote(client: MlflowClient, say: Say, task: Task, number: str | None, reason: str, seen: str | None) -> None:
    """Let a version serve; without a number the challenger. `seen` is the digest that served when it was asked for.

    The caller holds locks.hold_deployed(). Raises NotAsAsked, VersionUnknown and BundleInvalid.
    """
    registry_sync.bring_back(client, task, say)
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
        grounds = judge(journal.read_history(task), asked, "promotion", reason, _shown(version))
        champions.serve(client, task, version, grounds)
        say(f"{version.name} version {version.version} serves from {place(task)}")
        say(FOLLOWS)
    finally:
        registry_sync.show(client, task)


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
    tag, outcome = version.tags.get(registry_sync.DECISION, ""), version.tags.get(gate_reports.OUTCOME)
    refusal = tag if tag.startswith(("refused", "refusal")) else ""
    return Shown(refusal, {"gates": outcome} if outcome else {}, version.tags.get(gate_reports.REPORT))


def show(client: MlflowClient, task: Task) -> None:
    """Bring MLflow in line after what was decided without it, and the release with the number that MLflow knows."""
    digest = deployment.current_digest(task)
    version = registry.find_version(client, task, digest) if digest else None
    if version is not None:
        champions.align(client, task, version)
    registry_sync.show(client, task)
