"""MLflow's store -> the runs and versions of all tasks, read once; where it is missing or away, the reason instead."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from convoy.core.paths import TASKS
from convoy.tracking import artifacts, mlflow_runs, registry, settings
from convoy.tracking.artifacts import ArtifactRefused

_PAGE = 1000  # runs that MLflow gives at once
_REFUSALS = (ArtifactRefused, MlflowException, SQLAlchemyError, OSError)


@dataclass(frozen=True)
class KnownRun:
    """A run as MLflow has it."""

    id: str
    name: str
    status: str
    started_ms: int
    tags: dict[str, str]
    params: dict[str, str]


@dataclass(frozen=True)
class KnownVersion:
    """A registered version as MLflow has it."""

    name: str
    number: int
    run_id: str
    registered_ms: int
    aliases: tuple[str, ...]
    tags: dict[str, str]
    bundle: str  # where it lies among the artifacts of the run

    @property
    def digest(self) -> str:
        """The digest of its bundle."""
        return self.tags.get(registry.DIGEST, "")


@dataclass
class Known:
    """All that MLflow knows; `trouble` says why where that is nothing."""

    where: str
    trouble: str = ""
    runs: dict[str, KnownRun] = field(default_factory=dict)
    versions: list[KnownVersion] = field(default_factory=list)
    client: MlflowClient | None = None

    def artifact(self, run_id: str, name: str) -> bytes | None:
        """The content of an artifact; None where there is none, or MLflow cannot give it."""
        if self.client is None:
            return None
        try:
            return artifacts.read(self.client, run_id, name)
        except _REFUSALS:
            return None

    def artifacts(self, run_id: str, folder: str) -> list[str]:
        """The names of all artifacts of a run below `folder`."""
        try:
            return list(artifacts.list_files(self.client, run_id, folder)) if self.client else []
        except _REFUSALS:
            return []


def read_known() -> Known:
    """Read the store that mlflow_settings names; nothing is made or changed there."""
    database, where = settings.database(), settings.tracking_uri()
    if database is not None and not database.exists():
        return Known(where, f"{database} is not there; `python -m convoy publish` makes it anew from what is built")
    try:
        client = MlflowClient(tracking_uri=where, registry_uri=where)
        return Known(where, "", {run.id: run for run in _runs(client)}, list(_versions(client)), client)
    except _REFUSALS as error:
        return Known(where, f"MLflow ({where}) does not answer: {str(error).splitlines()[0]}")


def _runs(client: MlflowClient) -> Iterator[KnownRun]:
    found = [client.get_experiment_by_name(mlflow_runs.experiment_name(task)) for task in TASKS]
    experiments = [experiment.experiment_id for experiment in found if experiment is not None]
    token: str | None = None
    while experiments:
        page: Any = client.search_runs(experiments, max_results=_PAGE, page_token=token)
        for run in page:
            info = run.info
            yield KnownRun(info.run_id, info.run_name, info.status, info.start_time, run.data.tags, run.data.params)
        token = page.token
        if not token:
            return


def _versions(client: MlflowClient) -> Iterator[KnownVersion]:
    for task in TASKS:
        name = registry.model_name(task)
        aliases: dict[str, list[str]] = {}
        for model in client.search_registered_models(f"name = '{name}'"):
            for alias, number in model.aliases.items():
                aliases.setdefault(str(number), []).append(alias)
        for version in client.search_model_versions(f"name = '{name}'", max_results=10_000):
            number = str(version.version)
            if not number.isascii() or not number.isdigit():
                continue
            held = tuple(sorted(aliases.get(number, ())))
            registered_ms = int(version.creation_timestamp or 0)
            bundle = registry.bundle_folder(registry.model_folder(version))
            yield KnownVersion(name, int(number), str(version.run_id), registered_ms, held, dict(version.tags), bundle)
