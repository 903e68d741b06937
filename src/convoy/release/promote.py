"""A registered version -> deployed, by a decision of a person or a gate; then the alias `champion` follows.

A machine that pulls imports this, so nothing here may need more than mlflow-skinny.
"""

from contextlib import suppress

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy.bundles.bundle import Release
from convoy.core import paths
from convoy.core.process import Say
from convoy.release import deployment, journal, registry_sync
from convoy.release.decision import Decision, Grounds, MlflowView, Model, grounds_for, utc_now
from convoy.tracking import registry, settings
from convoy.tracking.checked_bundle import CheckedBundle


def deploy_version(
    client: MlflowClient, task: str, version: ModelVersion, grounds: Grounds, built: CheckedBundle | None = None
) -> Decision:
    """Deploy a version by a decision, which is appended; the alias follows. `built` may be its bundle.

    The bundle is verified first: raises BundleInvalid or VersionUnknown before anything is decided. The alias of an
    MLflow that machines share moves before the line, which a machine that came second does not write: ChampionMoved.
    """
    release = release_of(task, version)
    _copy(client, task, version, release, built)
    if not settings.is_local(client.tracking_uri):
        registry_sync.move_champion(client, task, version)
        return journal.decide(task, release, grounds)
    decision = journal.decide(task, release, grounds)
    registry_sync.move_champion(client, task, version)
    return decision


def update_release_and_alias(
    client: MlflowClient, task: str, version: ModelVersion, built: CheckedBundle | None = None
) -> bool:
    """Update release and alias of the deployed version, and repair its bundle; returns whether that was needed.

    An alias that another machine has moved stays; the caller has asked for it.
    """
    changed = _copy(client, task, version, release_of(task, version), built)
    with suppress(registry_sync.ChampionMoved):
        return registry_sync.move_champion(client, task, version) or changed
    return changed


def _copy(
    client: MlflowClient, task: str, version: ModelVersion, release: Release, built: CheckedBundle | None
) -> bool:
    with registry.bundle_of(
        client, version, [built, deployment.folder_of(task, release.digest), paths.bundle(task)]
    ) as bundle:
        return deployment.copy_bundle(task, bundle.folder, release)


def release_of(task: str, version: ModelVersion) -> Release:
    """The release of a version; the deployed one keeps the time since when it is deployed."""
    digest = registry.digest_of_version(version)
    stored = journal.release_of_bundle(task, digest)
    is_deployed = stored is not None and deployment.current_digest(task) == digest
    return Release(
        name=version.name,
        version=str(version.version),
        run_id=str(version.run_id),
        digest=digest,
        promoted_at=stored.promoted_at if stored and is_deployed else utc_now(),
    )


def promote(
    client: MlflowClient, say: Say, task: str, number: str | None, reason: str, seen_digest: str | None
) -> None:
    """Deploy a version; without a number the challenger. `seen_digest` was deployed at the time of the request.

    The caller holds locks.hold_deployed(). Raises ApprovalRefused, VersionUnknown and BundleInvalid.
    """
    if journal.finish_interrupted(task, say):
        seen_digest = deployment.current_digest(task)
    version = _version_to_promote(client, task, number)
    model = Model(version=str(version.version), digest=registry.digest_of_version(version))
    where = f"{version.name} version {version.version} serves from {deployment.current_link(task)}"
    try:
        journal.refuse_if_deployed_changed(task, model, seen_digest)
        registry_sync.require_seen_champion(client, task, model.digest)
        if deployment.current_digest(task) == model.digest:
            update_release_and_alias(client, task, version)
            say(f"{where}, as it did before")
            return
        grounds = grounds_for(journal.read_history(task), model, "promotion", reason, _view_of(version))
        deploy_version(client, task, version, grounds)
        say(where)
        say(deployment.SERVICE_FOLLOWS)
    finally:
        registry_sync.update_mlflow(client, task)


def align_and_update_mlflow(client: MlflowClient, task: str) -> None:
    """Update MLflow after a decision that was made without it, and the release with MLflow's number.

    Raises ChampionMoved, and leaves a shared MLflow as it is.
    """
    digest = deployment.current_digest(task)
    registry_sync.require_seen_champion(client, task, digest or "")
    version = registry.find_version(client, task, digest) if digest else None
    if version is not None:
        update_release_and_alias(client, task, version)
    registry_sync.update_mlflow(client, task)


def _version_to_promote(client: MlflowClient, task: str, number: str | None) -> ModelVersion:
    if number is not None:
        return registry.get_version(client, task, number)
    version = registry.version_with(client, task, "challenger")
    if version is None:
        raise registry.VersionUnknown(
            f"{registry.model_name(task)} has no challenger; name a version with --version, or run "
            "`python -m convoy publish` first"
        )
    return version


def _view_of(version: ModelVersion) -> MlflowView:
    tag, outcome = version.tags.get(registry_sync.DECISION, ""), version.tags.get(registry_sync.GATES_OUTCOME)
    refusal = tag if tag.startswith(("refused", "refusal")) else ""
    return MlflowView(refusal, {"gates": outcome} if outcome else {}, version.tags.get(registry_sync.GATES_REPORT))
