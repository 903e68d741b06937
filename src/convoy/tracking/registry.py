"""MLflow's registered models: versions found by digest, their bundles fetched, and the aliases of deployed ones.

Needs MLflow's client alone (mlflow-skinny): machines that only serve import it too.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from convoy.bundles.bundle import BundleInvalid, digest_of
from convoy.core import tasks
from convoy.tracking import artifacts
from convoy.tracking.artifacts import ArtifactRefused
from convoy.tracking.checked_bundle import CheckedBundle
from convoy.tracking.settings import DIGEST as DIGEST
from convoy.tracking.settings import model_name as model_name

Alias = Literal["champion", "challenger"]
_PAGE_SIZE = 1000
FOLDER = "model"  # among the run's artifacts; a second export of the same training adds its digest
_PATTERNS = {"version": r"[0-9]{1,9}", "run_id": r"[0-9a-f]{32}", "digest": r"[0-9a-f]{64}"}
_MODEL_FOLDER = re.compile(rf"{FOLDER}(-[0-9a-f]+)?")
_NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model, no such alias


class VersionUnknown(LookupError):
    """A registered version that does not exist, or whose files are gone."""


class VersionInvalid(VersionUnknown):
    """A registered version whose number, run or digest is not of the form that `publish` writes."""


def digest_of_version(version: ModelVersion) -> str:
    """The digest of a version's bundle. Raises VersionInvalid where it, its number or its run is malformed.

    The number becomes a header of every answer and the digest a folder's name, and whoever can write to MLflow can
    choose them.
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


def find_version(client: MlflowClient, task: str, digest: str) -> ModelVersion | None:
    """The version that holds the bundle with this digest."""
    versions = client.search_model_versions(f"name = '{model_name(task)}' and tags.{DIGEST} = '{digest}'")
    return min(versions, key=lambda version: int(version.version), default=None)


def versions(client: MlflowClient, task: str, run_id: str | None = None) -> list[ModelVersion]:
    """Every version of a task, or those of one of its runs, the oldest first."""
    query = f"name = '{model_name(task)}'" + (f" and run_id = '{run_id}'" if run_id else "")
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(query, _PAGE_SIZE, page_token=token)
        found += [version for version in page if re.fullmatch(r"[0-9]+", str(version.version), re.ASCII)]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def models(client: MlflowClient) -> dict[str, dict[str, str]]:
    """Task -> alias -> version, of every registered model that is a task's.

    Whoever can write to MLflow chooses the names: those that no task can have are left out.
    """
    found = client.search_registered_models("name LIKE 'convoy-%'", max_results=_PAGE_SIZE)
    by_task = {model.name.removeprefix("convoy-"): model for model in found}
    return {
        task: {alias: str(version) for alias, version in model.aliases.items()}
        for task, model in by_task.items()
        if tasks.is_name(task)
    }


def get_version(client: MlflowClient, task: str, version: str) -> ModelVersion:
    """One version by its number. Raises VersionUnknown, which lists the existing ones."""
    try:
        return client.get_model_version(model_name(task), version)
    except MlflowException:
        numbers = [str(registered.version) for registered in versions(client, task)]
        raise VersionUnknown(
            f"{model_name(task)} has no version {version}; there is {', '.join(numbers) or 'none'}"
        ) from None


def version_with(client: MlflowClient, task: str, alias: Alias) -> ModelVersion | None:
    """The version that has an alias now; None where none has."""
    try:
        return client.get_model_version_by_alias(model_name(task), alias)
    except MlflowException as error:
        if error.error_code not in _NOT_FOUND_CODES:
            raise
        return None


def has_model(client: MlflowClient, name: str) -> bool:
    """Whether a model of this name is registered."""
    return _model(client, name) is not None


def aliases_of(client: MlflowClient, name: str) -> dict[str, str] | None:
    """The aliases of a registered model with their versions; None where no model of this name is registered."""
    model = _model(client, name)
    return None if model is None else dict(model.aliases)


def _model(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def set_alias(client: MlflowClient, task: str, alias: Alias, version: str) -> bool:
    """Give `version` the alias; returns whether anything changed. A champion is no longer challenger."""
    changed = False
    current = version_with(client, task, alias)
    if current is None or str(current.version) != str(version):
        client.set_registered_model_alias(model_name(task), alias, str(version))
        changed = True
    if alias == "champion":
        challenger = version_with(client, task, "challenger")
        if challenger is not None and str(challenger.version) == str(version):
            client.delete_registered_model_alias(model_name(task), "challenger")
            changed = True
    return changed


def remove_alias(client: MlflowClient, task: str, alias: Alias) -> None:
    """Take an alias away; nothing happens where no version has it."""
    if version_with(client, task, alias) is not None:
        client.delete_registered_model_alias(model_name(task), alias)


def model_folder(version: ModelVersion) -> str:
    """Where a version's model lies among the artifacts of its run; empty where `publish` has not put it there."""
    name = str(version.source).rstrip("/").rpartition("/")[-1]
    return name if _MODEL_FOLDER.fullmatch(name) else ""


def bundle_folder(model: str) -> str:
    """Where the bundle lies among the artifacts of a run, by the folder of its model."""
    return f"{model}/data/bundle"


@contextmanager
def bundle_of(
    client: MlflowClient, version: ModelVersion, nearby: Sequence[CheckedBundle | Path | None]
) -> Iterator[CheckedBundle]:
    """A version's bundle: a whole copy among `nearby`, or a temporary download from MLflow.

    Raises VersionUnknown, VersionInvalid.
    """
    digest = digest_of_version(version)
    for place in nearby:
        bundle = _whole_bundle(place, digest)
        if bundle is not None:
            yield bundle
            return
    if not model_folder(version):
        raise VersionInvalid(
            f"{version.name} version {version.version} is in {str(version.source)[-80:]!r}, not in a folder "
            f"{_MODEL_FOLDER.pattern} of its run; publish the model again"
        )
    with tempfile.TemporaryDirectory() as temporary:
        try:
            bundle_path = bundle_folder(model_folder(version))
            bundle = CheckedBundle.read(artifacts.download(client, str(version.run_id), bundle_path, Path(temporary)))
        except (ArtifactRefused, MlflowException, OSError, BundleInvalid) as error:
            raise VersionUnknown(f"MLflow cannot give the files of {version.name} {version.version}: {error}") from None
        if bundle.digest != digest:
            raise VersionUnknown(
                f"MLflow's files of {version.name} {version.version} are another bundle ({bundle.digest})"
            )
        yield bundle


def _whole_bundle(place: CheckedBundle | Path | None, digest: str) -> CheckedBundle | None:
    if not isinstance(place, Path):
        return place if place is not None and place.digest == digest else None
    try:
        bundle = CheckedBundle.read(place) if digest_of(place) == digest else None
    except (OSError, BundleInvalid):
        return None
    return bundle
