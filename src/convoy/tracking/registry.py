"""MLflow's registered models: each version found by its digest, its bundle fetched, and the aliases of who serves.

Needs MLflow's client alone (mlflow-skinny): machines that serve read it too.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from convoy.bundles.bundle import BundleInvalid, digest_of, read_bundle
from convoy.core.paths import Task
from convoy.tracking import artifacts, store
from convoy.tracking.artifacts import ArtifactRefused

Alias = Literal["champion", "challenger"]
DIGEST = store.DIGEST
model_name = store.model_name
FOLDER = "model"  # of the run's artifacts; of a second export of the same training it goes on with the digest
_PATTERNS = {"version": r"[0-9]{1,9}", "run_id": r"[0-9a-f]{32}", "digest": r"[0-9a-f]{64}"}
_MODEL = re.compile(rf"{FOLDER}(-[0-9a-f]+)?")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model, no such alias


class VersionUnknown(LookupError):
    """A registered version that does not exist, or whose files are gone."""


class VersionInvalid(VersionUnknown):
    """A registered version whose number, run or digest is not of the form that `publish` writes."""


def digest_of_version(version: ModelVersion) -> str:
    """The digest of a version's bundle. Raises VersionInvalid where it, its number or its run is malformed.

    The number becomes a header of every answer, the digest a folder's name, and anybody who can write to MLflow can
    have chosen them.
    """
    values = {"version": version.version, "run_id": version.run_id, "digest": version.tags.get(DIGEST, "")}
    for name, value in values.items():
        if not re.fullmatch(_PATTERNS[name], str(value)):
            where = f"the tag {DIGEST}" if name == "digest" else name
            raise VersionInvalid(
                f"{version.name}: version {str(version.version)[:20]!r} has {where} {str(value)[:80]!r}, expected is "
                f"{_PATTERNS[name]}; publish the model again"
            )
    return str(version.tags[DIGEST])


def find_version(client: MlflowClient, task: Task, digest: str) -> ModelVersion | None:
    """The version that holds the bundle with this digest."""
    found = client.search_model_versions(f"name = '{model_name(task)}' and tags.{DIGEST} = '{digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def get_version(client: MlflowClient, task: Task, version: str) -> ModelVersion:
    """One version by its number. Raises VersionUnknown, which names those there are."""
    try:
        return client.get_model_version(model_name(task), version)
    except MlflowException:
        known = sorted(int(found.version) for found in client.search_model_versions(f"name = '{model_name(task)}'"))
        raise VersionUnknown(
            f"{model_name(task)} has no version {version}; there is {', '.join(map(str, known)) or 'none'}"
        ) from None


def version_with(client: MlflowClient, task: Task, alias: Alias) -> ModelVersion | None:
    """The version that has an alias now; None where none has."""
    try:
        return client.get_model_version_by_alias(model_name(task), alias)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None


def set_alias(client: MlflowClient, task: Task, alias: Alias, version: str) -> bool:
    """Give `version` the alias; says whether it had another one before. A champion is no challenger any more."""
    changed = False
    now = version_with(client, task, alias)
    if now is None or str(now.version) != str(version):
        client.set_registered_model_alias(model_name(task), alias, str(version))
        changed = True
    if alias == "champion":
        challenger = version_with(client, task, "challenger")
        if challenger is not None and str(challenger.version) == str(version):
            client.delete_registered_model_alias(model_name(task), "challenger")
            changed = True
    return changed


def model_folder(version: ModelVersion) -> str:
    """Where a version's model lies among the artifacts of its run; empty where `publish` has not put it there."""
    name = str(version.source).rstrip("/").rpartition("/")[-1]
    return name if _MODEL.fullmatch(name) else ""


def bundle_folder(model: str) -> str:
    """Where the bundle lies among the artifacts of a run, by the folder of its model."""
    return f"{model}/data/bundle"


@contextmanager
def bundle_of(client: MlflowClient, version: ModelVersion, nearby: list[Path]) -> Iterator[Path]:
    """A folder with a version's bundle: a whole copy among `nearby`, or downloaded from MLflow for the while."""
    digest = digest_of_version(version)
    for folder in nearby:
        if _is_whole(folder, digest):
            yield folder
            return
    if not model_folder(version):
        raise VersionInvalid(
            f"{version.name} version {version.version} is in {str(version.source)[-80:]!r}, not in a folder "
            f"{_MODEL.pattern} of its run; publish the model again"
        )
    with tempfile.TemporaryDirectory() as temporary:
        try:
            kept = bundle_folder(model_folder(version))
            folder = artifacts.download(client, str(version.run_id), kept, Path(temporary))
            found = read_bundle(folder).digest
        except (ArtifactRefused, MlflowException, OSError, BundleInvalid) as error:
            raise VersionUnknown(f"MLflow cannot give the files of {version.name} {version.version}: {error}") from None
        if found != digest:
            raise VersionUnknown(f"MLflow's files of {version.name} {version.version} are another bundle ({found})")
        yield folder


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return digest_of(folder) == digest and read_bundle(folder).digest == digest
    except (OSError, BundleInvalid):
        return False
