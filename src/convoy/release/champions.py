"""A registered version -> what serves, by a decision; and the alias `champion` after it."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy.bundles.bundle import Release
from convoy.core import paths
from convoy.core.paths import Task
from convoy.release import deployment, promotion
from convoy.release.decision import Decision, Grounds, now
from convoy.tracking import registry


def serve(client: MlflowClient, task: Task, version: ModelVersion, grounds: Grounds) -> Decision:
    """Let a version serve by a decision, which is appended; the alias follows.

    What the decision names is proven first: raises BundleInvalid or VersionUnknown before anything is decided.
    """
    digest = registry.digest_of_version(version)
    release = release_of(task, version)
    with registry.bundle_of(client, version, [deployment.folder_of(task, digest), paths.bundle(task)]) as folder:
        deployment.put(task, folder, release)
    decision = promotion.decide(task, release, grounds)
    registry.set_alias(client, task, "champion", version.version)
    return decision


def align(client: MlflowClient, task: Task, version: ModelVersion) -> bool:
    """Bring release and alias in line with a version that serves, and mend its bundle; says whether that was needed."""
    digest = registry.digest_of_version(version)
    with registry.bundle_of(client, version, [deployment.folder_of(task, digest), paths.bundle(task)]) as folder:
        changed = deployment.put(task, folder, release_of(task, version))
    return registry.set_alias(client, task, "champion", version.version) or changed


def release_of(task: Task, version: ModelVersion) -> Release:
    """The release of a version; one that serves already keeps the time since when it does."""
    digest = registry.digest_of_version(version)
    known = promotion.released(task, digest)
    serves = known is not None and deployment.current_digest(task) == digest
    return Release(
        name=version.name,
        version=str(version.version),
        run_id=str(version.run_id),
        digest=digest,
        promoted_at=known.promoted_at if known and serves else now(),
    )
