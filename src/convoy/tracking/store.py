"""What MLflow holds, read by its client: versions and aliases of a task, or the runs and versions of all tasks.

The client takes seconds to import, so the functions import it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from convoy.core import tasks
from convoy.tracking import settings
from convoy.tracking.settings import DIGEST, model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE_SIZE = 1000  # runs that MLflow gives at once


class RegistryUnavailable(RuntimeError):
    """The registry cannot be read: it is missing, broken or away."""


@dataclass(frozen=True)
class RegisteredVersion:
    """One version."""

    version: str
    digest: str
    since: str  # UTC, ISO 8601


@dataclass(frozen=True)
class RegisteredModel:
    """What MLflow holds of a task."""

    versions: list[RegisteredVersion] = field(default_factory=list)  # the oldest first
    aliases: dict[str, str] = field(default_factory=dict)  # champion, challenger -> version

    def of_digest(self, digest: str) -> RegisteredVersion | None:
        """The version that holds a bundle, the oldest where there are several."""
        return next((version for version in self.versions if version.digest == digest), None)

    def of_number(self, number: str) -> RegisteredVersion | None:
        """The version with a number."""
        return next((version for version in self.versions if version.version == number), None)


@dataclass(frozen=True)
class RunRecord:
    """A run as MLflow has it."""

    id: str
    name: str
    status: str
    started_ms: int
    tags: dict[str, str]
    params: dict[str, str]


@dataclass(frozen=True)
class VersionRecord:
    """A registered version as MLflow has it."""

    name: str
    number: int
    run_id: str
    registered_ms: int
    aliases: tuple[str, ...]
    tags: dict[str, str]
    bundle: str  # its folder among the artifacts of the run

    @property
    def digest(self) -> str:
        """The digest of its bundle."""
        return self.tags.get(DIGEST, "")

    @property
    def model(self) -> str:
        """The folder of its model among the artifacts of the run, in which dvc.lock and source.patch stand."""
        return self.bundle.partition("/")[0]


@dataclass
class StoreContents:
    """All runs and versions in MLflow; where there are none, `trouble` says why."""

    where: str
    trouble: str = ""
    runs: dict[str, RunRecord] = field(default_factory=dict)
    versions: list[VersionRecord] = field(default_factory=list)
    client: "MlflowClient | None" = None

    def artifact(self, run_id: str, name: str) -> bytes | None:
        """The content of an artifact; None where there is none, or MLflow cannot give it."""
        if self.client is None:
            return None
        from convoy.tracking import artifacts

        try:
            return artifacts.read(self.client, run_id, name)
        except _read_errors():
            return None

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """The names of all artifacts of a run below `folder`."""
        if self.client is None:
            return []
        from convoy.tracking import artifacts

        try:
            return list(artifacts.list_files(self.client, run_id, folder))
        except _read_errors():
            return []


def read_registry(task: str) -> RegisteredModel:
    """What the registry holds now. Raises RegistryUnavailable, which says why it cannot be read."""
    database, where = settings.database(), settings.tracking_uri()
    if database is not None and not database.exists():
        raise RegistryUnavailable(f"{database} is missing")
    settings.apply()
    from convoy.tracking import registry

    try:
        client = _client(where)
        versions = registry.versions(client, task)
        aliases = registry.aliases_of(client, model_name(task)) or {}
    except _read_errors() as error:
        trouble = f"{database} cannot be read" if database else f"{where} does not answer"
        raise RegistryUnavailable(f"{trouble} ({str(error).splitlines()[0]})") from None
    return RegisteredModel(
        [
            RegisteredVersion(str(version.version), version.tags[DIGEST], _iso_time(version.creation_timestamp))
            for version in versions
            if DIGEST in version.tags
        ],
        {alias: str(number) for alias, number in aliases.items()},
    )


def read_all() -> StoreContents:
    """Read the store that tracking.settings names; nothing is made or changed there."""
    database, where = settings.database(), settings.tracking_uri()
    if database is not None and not database.exists():
        return StoreContents(
            where, f"{database} is not there; `python -m convoy publish` makes it anew from what is built"
        )
    try:
        client = _client(where)
        return StoreContents(
            where, "", {run.id: run for run in _read_runs(client)}, list(_read_versions(client)), client
        )
    except _read_errors() as error:
        return StoreContents(where, f"MLflow ({where}) does not answer: {str(error).splitlines()[0]}")


def _client(where: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=where, registry_uri=where)


def _iso_time(made_ms: int) -> str:
    return datetime.fromtimestamp(made_ms / 1000, UTC).isoformat(timespec="seconds")


def _read_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException

    from convoy.tracking.artifacts import ArtifactRefused

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # a machine that only serves has MLflow's client alone
        return (ArtifactRefused, MlflowException, OSError)
    return (ArtifactRefused, MlflowException, SQLAlchemyError, OSError)


def _read_runs(client: "MlflowClient") -> Iterator[RunRecord]:
    """The runs of all tasks, also of those that params.yaml no longer has."""
    experiments = client.search_experiments(filter_string="name LIKE 'convoy-%'", max_results=_PAGE_SIZE)
    experiment_ids = [entry.experiment_id for entry in experiments if tasks.is_name(entry.name.removeprefix("convoy-"))]
    token: str | None = None
    while experiment_ids:
        page: Any = client.search_runs(experiment_ids, max_results=_PAGE_SIZE, page_token=token)
        for run in page:
            info = run.info
            yield RunRecord(info.run_id, info.run_name, info.status, info.start_time, run.data.tags, run.data.params)
        token = page.token
        if not token:
            return


def _read_versions(client: "MlflowClient") -> Iterator[VersionRecord]:
    from convoy.tracking import registry

    for task, aliases in registry.models(client).items():
        for version in registry.versions(client, task):
            number = str(version.version)
            yield VersionRecord(
                version.name,
                int(number),
                str(version.run_id),
                int(version.creation_timestamp or 0),
                tuple(sorted(alias for alias, aliased in aliases.items() if aliased == number)),
                dict(version.tags),
                registry.bundle_folder(registry.model_folder(version)),
            )
