"""MLflow's registry -> versions and champion in milliseconds, for a look: importing MLflow's client takes 3 s."""

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from convoy.core.paths import Task
from convoy.tracking import settings

DIGEST = "digest"  # tag of a version: of its bundle
ANSWERS_WITHIN_S = 1.0  # of a server for a look; publish waits longer


class RegistryAway(RuntimeError):
    """The registry cannot be read: it is missing, broken, away, or of a kind that MLflow's client alone reads."""


@dataclass(frozen=True)
class Registered:
    """One version."""

    version: str
    digest: str
    since: str  # UTC, ISO 8601


@dataclass(frozen=True)
class Registry:
    """What MLflow holds of a task."""

    versions: list[Registered] = field(default_factory=list)  # the oldest first
    aliases: dict[str, str] = field(default_factory=dict)  # champion, challenger -> version

    def of_digest(self, digest: str) -> Registered | None:
        """The version that holds a bundle, the oldest where there are several."""
        return next((each for each in self.versions if each.digest == digest), None)

    def of_number(self, number: str) -> Registered | None:
        """The version with a number."""
        return next((each for each in self.versions if each.version == number), None)


def model_name(task: Task) -> str:
    """The name of a task's registered model."""
    return f"convoy-{task}"


def read(task: Task) -> Registry:
    """What the registry holds now. Raises RegistryAway, which says why it cannot be read."""
    uri = settings.tracking_uri()
    database = settings.database()
    if database is not None:
        return _of_file(database, model_name(task))
    if uri.startswith(("http://", "https://")):
        return _of_server(uri.rstrip("/"), model_name(task))
    raise RegistryAway(f"{uri.split(':')[0]} is a store that MLflow's client alone reads")


def _of_file(database: Path, name: str) -> Registry:
    if not database.exists():
        raise RegistryAway(f"{database} is missing")
    try:
        # Read only: a look must neither make a file nor wait for who writes.
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            versions = connection.execute(
                "SELECT v.version, t.value, v.creation_time FROM model_versions v JOIN model_version_tags t "
                "ON v.name = t.name AND v.version = t.version WHERE v.name = ? AND t.key = ? "
                "AND v.current_stage != 'Deleted_Internal' ORDER BY v.version",
                (name, DIGEST),
            ).fetchall()
            aliases = connection.execute(
                "SELECT alias, version FROM registered_model_aliases WHERE name = ?", (name,)
            ).fetchall()
    except sqlite3.Error as error:
        raise RegistryAway(f"{database} cannot be read ({error})") from None
    found = [Registered(str(version), digest, _time(made_ms)) for version, digest, made_ms in versions]
    return Registry(found, {alias: str(version) for alias, version in aliases})


def _of_server(uri: str, name: str) -> Registry:
    search = urllib.parse.urlencode({"filter": f"name='{name}'", "max_results": 10_000})
    found = _ask(f"{uri}/api/2.0/mlflow/model-versions/search?{search}").get("model_versions", [])
    model = _ask(f"{uri}/api/2.0/mlflow/registered-models/get?name={name}").get("registered_model", {})
    versions = []
    for each in sorted(found, key=lambda each: int(each["version"])):
        tags = {tag["key"]: tag["value"] for tag in each.get("tags", [])}
        if DIGEST in tags:
            versions.append(Registered(str(each["version"]), tags[DIGEST], _time(int(each["creation_timestamp"]))))
    return Registry(versions, {each["alias"]: str(each["version"]) for each in model.get("aliases", [])})


def _ask(url: str) -> dict[str, Any]:
    request = urllib.request.Request(url, headers=_credentials())
    try:
        with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
            content: dict[str, Any] = json.loads(answer.read())
            return content
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404 and b"RESOURCE_DOES_NOT_EXIST" in error.read():
                return {}
        raise RegistryAway(f"{url.split('/api/')[0]} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise RegistryAway(f"{url.split('/api/')[0]} does not answer ({error})") from None


def _credentials() -> dict[str, str]:
    """As MLflow's client takes them from the environment."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _time(made_ms: int) -> str:
    return datetime.fromtimestamp(made_ms / 1000, UTC).isoformat(timespec="seconds")
