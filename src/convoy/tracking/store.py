"""MLflow's store, read: versions and champion in milliseconds, or the runs and versions of all tasks at once.

MLflow's client takes 3 s to import, so only `read_all` imports it.
"""

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convoy.core import tasks
from convoy.tracking import settings
from convoy.tracking.settings import DIGEST, model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

ANSWERS_WITHIN_S = 1.0  # timeout of a server for `read_registry`; publish waits longer
_PAGE_SIZE = 1000  # runs that MLflow gives at once


class RegistryUnavailable(RuntimeError):
    """The registry cannot be read: it is missing, broken, away, or of a kind that MLflow's client alone reads."""


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
    uri = settings.tracking_uri()
    database = settings.database()
    if database is not None:
        return _read_database(database, model_name(task))
    if uri.startswith(("http://", "https://")):
        return _read_server(uri.rstrip("/"), model_name(task))
    raise RegistryUnavailable(f"{uri.split(':')[0]} is a store that MLflow's client alone reads")


def read_all() -> StoreContents:
    """Read the store that tracking.settings names; nothing is made or changed there."""
    database, where = settings.database(), settings.tracking_uri()
    if database is not None and not database.exists():
        return StoreContents(
            where, f"{database} is not there; `python -m convoy publish` makes it anew from what is built"
        )
    from mlflow import MlflowClient

    try:
        client = MlflowClient(tracking_uri=where, registry_uri=where)
        return StoreContents(
            where, "", {run.id: run for run in _read_runs(client)}, list(_read_versions(client)), client
        )
    except _read_errors() as error:
        return StoreContents(where, f"MLflow ({where}) does not answer: {str(error).splitlines()[0]}")


def _read_database(database: Path, name: str) -> RegisteredModel:
    if not database.exists():
        raise RegistryUnavailable(f"{database} is missing")
    try:
        # Read only: reading must neither make a file nor wait for a writer.
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            rows = connection.execute(
                "SELECT v.version, t.value, v.creation_time FROM model_versions v JOIN model_version_tags t "
                "ON v.name = t.name AND v.version = t.version WHERE v.name = ? AND t.key = ? "
                "AND v.current_stage != 'Deleted_Internal' ORDER BY v.version",
                (name, DIGEST),
            ).fetchall()
            aliases = connection.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name = ?", (name,)
            ).fetchall()
    except sqlite3.Error as error:
        raise RegistryUnavailable(f"{database} cannot be read ({error})") from None
    versions = [RegisteredVersion(str(version), digest, _iso_time(made_ms)) for version, digest, made_ms in rows]
    return RegisteredModel(versions, {alias: str(version) for alias, version in aliases})


def _read_server(uri: str, name: str) -> RegisteredModel:
    search = urllib.parse.urlencode({"filter": f"name='{name}'", "max_results": 10_000})
    entries = _get_json(f"{uri}/api/2.0/mlflow/model-versions/search?{search}").get("model_versions", [])
    model = _get_json(f"{uri}/api/2.0/mlflow/registered-models/get?name={name}").get("registered_model", {})
    versions = []
    for entry in sorted(entries, key=lambda entry: int(entry["version"])):
        tags = {tag["key"]: tag["value"] for tag in entry.get("tags", [])}
        if DIGEST in tags:
            versions.append(
                RegisteredVersion(str(entry["version"]), tags[DIGEST], _iso_time(int(entry["creation_timestamp"])))
            )
    return RegisteredModel(versions, {entry["alias"]: str(entry["version"]) for entry in model.get("aliases", [])})


def _get_json(url: str) -> dict[str, Any]:
    request = urllib.request.Request(url, headers=_auth_headers())
    try:
        with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
            content: dict[str, Any] = json.loads(answer.read())
            return content
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404 and b"RESOURCE_DOES_NOT_EXIST" in error.read():
                return {}
        raise RegistryUnavailable(f"{url.split('/api/')[0]} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise RegistryUnavailable(f"{url.split('/api/')[0]} does not answer ({error})") from None


def _auth_headers() -> dict[str, str]:
    """The headers that MLflow's client would send, from the same variables."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _iso_time(made_ms: int) -> str:
    return datetime.fromtimestamp(made_ms / 1000, UTC).isoformat(timespec="seconds")


def _read_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from convoy.tracking.artifacts import ArtifactRefused

    return (ArtifactRefused, MlflowException, SQLAlchemyError, OSError)


def _read_runs(client: "MlflowClient") -> Iterator[RunRecord]:
    """The runs of all tasks, also of those that params.yaml no longer has."""
    experiments = client.search_experiments(filter_string="name LIKE 'convoy-%'", max_results=_PAGE_SIZE)
    experiment_ids = [entry.experiment_id for entry in experiments if _is_of_task(entry.name)]
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
    for model in client.search_registered_models("name LIKE 'convoy-%'", max_results=_PAGE_SIZE):
        if _is_of_task(model.name):
            yield from _read_versions_of(client, model.name, model.aliases)


def _read_versions_of(client: "MlflowClient", name: str, aliases: dict[str, Any]) -> Iterator[VersionRecord]:
    from convoy.tracking import registry

    for version in client.search_model_versions(f"name = '{name}'", max_results=10_000):
        number = str(version.version)
        if not number.isascii() or not number.isdigit():
            continue
        own_aliases = tuple(sorted(alias for alias, aliased in aliases.items() if str(aliased) == number))
        registered_ms = int(version.creation_timestamp or 0)
        bundle = registry.bundle_folder(registry.model_folder(version))
        yield VersionRecord(
            name, int(number), str(version.run_id), registered_ms, own_aliases, dict(version.tags), bundle
        )


def _is_of_task(name: str) -> bool:
    """Whether an experiment or a registered model is of a task: Convoy has others of its own, as convoy-decisions."""
    task = name.removeprefix("convoy-")
    return tasks.NAME.fullmatch(task) is not None and task not in tasks.RESERVED
