"""A registered version -> what serves: deployed/ first, then the alias `champion`, and the decision as a tag."""

from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy import layout
from convoy.bundle import BundleInvalid, Release, read_release
from convoy.layout import Task
from convoy.publishing import deployment, registry

DECISION = "decision"  # tag of a version; one that was decided on is never promoted by itself again


def promote(client: MlflowClient, task: Task, version: ModelVersion, reason: str) -> bool:
    """Let a version serve; says whether anything changed. The alias follows deployed/, never the other way round."""
    digest = version.tags[registry.DIGEST]
    nearby = [deployment.folder_of(task, digest), layout.bundle(task)]
    with registry.bundle_of(client, version, nearby) as folder:
        changed = deployment.deploy(task, folder, release_of(task, version))
    changed |= registry.set_alias(client, task, "champion", version.version)
    if version.tags.get(DECISION) != reason:
        client.set_model_version_tag(version.name, str(version.version), DECISION, reason)
    return changed


def release_of(task: Task, version: ModelVersion) -> Release:
    """The release of a version; one that serves already keeps the time since when it does."""
    digest = version.tags[registry.DIGEST]
    try:
        known = read_release(deployment.folder_of(task, digest))
    except BundleInvalid:
        known = None
    serving = known is not None and deployment.current_digest(task) == digest
    return Release(
        name=version.name,
        version=str(version.version),
        run_id=str(version.run_id),
        digest=digest,
        promoted_at=known.promoted_at if known and serving else datetime.now(UTC).isoformat(timespec="seconds"),
    )
