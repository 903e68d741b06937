"""Versions and runs as MLflow stores them, with sizes -> out of it, in steps that a kill may come between."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion

from convoy.core.paths import Task
from convoy.tracking import artifacts, mlflow_runs, registry

RETIRED = "convoy.gc"  # tag of a run of which something is being removed: `model`, the bundle, or `run`, all of it
_OURS = ("convoy.architecture", "convoy.baseline")  # other runs are a person's own, or say what was done when
_PAGE = 1000


class RetiringFailed(RuntimeError):
    """A run's files lie where nothing is removed."""


@dataclass(frozen=True)
class StoredRun:
    """A run, with the bytes of its artifacts and those of the bundles among them."""

    run: Run
    folder: Path | None  # None where they lie outside the artifact root: then nothing of it is removed
    size: int
    model_sizes: dict[str, int]  # by the folder that a version names

    @property
    def run_id(self) -> str:
        return str(self.run.info.run_id)

    @property
    def at(self) -> datetime:
        """When it ended, or began where it has not ended."""
        return datetime.fromtimestamp((self.run.info.end_time or self.run.info.start_time) / 1000, UTC)

    @property
    def is_ours(self) -> bool:
        """Whether `publish` made it, of a candidate or a baseline, and it has ended."""
        ended = self.run.info.status not in ("RUNNING", "SCHEDULED")
        return ended and mlflow_runs.RUN_KEY in self.run.data.tags and any(tag in self.run.data.tags for tag in _OURS)


def versions(client: MlflowClient, task: Task) -> list[ModelVersion]:
    """Every version of a task."""
    name = f"name = '{registry.model_name(task)}'"
    return list(_pages(lambda token: client.search_model_versions(name, page_token=token)))


def made_at(version: ModelVersion) -> datetime:
    """When a version was last written to, as by a decision."""
    return datetime.fromtimestamp(max(version.creation_timestamp, version.last_updated_timestamp or 0) / 1000, UTC)


def runs(client: MlflowClient, task: Task) -> list[StoredRun]:
    """Every run of a task's experiment that is not in MLflow's bin."""
    return [_stored(run) for run in _runs(client, task, "", ViewType.ACTIVE_ONLY)]


def retire_version(client: MlflowClient, version: ModelVersion) -> None:
    """Take a version out of the registry, and its bundle from its run; the run stays."""
    run_id = str(version.run_id)
    client.set_tag(run_id, RETIRED, "model")
    client.delete_model_version(version.name, str(version.version))
    _remove_models(client, version.name, client.get_run(run_id))


def retire_runs(client: MlflowClient, run_ids: Sequence[str]) -> None:
    """Remove runs with all they hold. Raises RetiringFailed before anything is done where files lie elsewhere."""
    found = [client.get_run(run_id) for run_id in run_ids]
    for run in found:
        if artifacts.folder_of(run) is None:
            raise RetiringFailed(f"the files of run {run.info.run_id} are at {run.info.artifact_uri}; it stays")
    for run_id in run_ids:
        client.set_tag(run_id, RETIRED, "run")
        client.delete_run(run_id)
    _empty_bin(client, found)


def finish(client: MlflowClient, task: Task) -> int:
    """Do what a kill has kept from being done, and say of how many runs; what was not yet begun is judged anew."""
    found = _runs(client, task, f"tags.`{RETIRED}` != ''", ViewType.ALL)
    marked = [run for run in found if artifacts.folder_of(run) is not None]
    binned = [run for run in marked if run.info.lifecycle_stage == "deleted"]
    for run in marked:
        if run.info.lifecycle_stage == "deleted":
            continue
        if run.data.tags[RETIRED] == "model":
            _remove_models(client, registry.model_name(task), run)
        else:
            client.delete_tag(run.info.run_id, RETIRED)
    _empty_bin(client, binned)
    return len(marked)


def _remove_models(client: MlflowClient, name: str, run: Run) -> None:
    """Those of a run that no version names."""
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
    named = {registry.model_folder(version) for version in versions}
    for model in _models(artifacts.folder_of(run)):
        if model.name not in named:
            shutil.rmtree(model)
    client.delete_tag(run.info.run_id, RETIRED)


def _empty_bin(client: MlflowClient, runs: Sequence[Run]) -> None:
    """Remove these runs alone, files first. What a person has put into MLflow's bin stays there.

    `mlflow gc --run-ids` would remove every experiment and logged model in the bin too, and wherever the database says.
    """
    store: Any = client._tracking_client.store
    for run in runs:
        folder = artifacts.folder_of(run)
        if folder is not None:
            if folder.parent.exists():
                shutil.rmtree(folder.parent)
            store._hard_delete_run(run.info.run_id)  # as `mlflow gc` does; MLflow has no public call for it


def _runs(client: MlflowClient, task: Task, which: str, view: int) -> Iterator[Run]:
    experiment = client.get_experiment_by_name(mlflow_runs.experiment_name(task))
    if experiment is None:
        return
    ids = [experiment.experiment_id]
    yield from _pages(lambda token: client.search_runs(ids, which, view, _PAGE, page_token=token))


def _pages(page: Callable[[str | None], Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return


def _stored(run: Run) -> StoredRun:
    folder = artifacts.folder_of(run)
    if folder is None:
        return StoredRun(run, None, 0, {})
    return StoredRun(run, folder, size_of(folder), {model.name: size_of(model) for model in _models(folder)})


def _models(folder: Path | None) -> list[Path]:
    """The models among a run's files, not links to some."""
    found = [] if folder is None else [*folder.glob(registry.FOLDER), *folder.glob(f"{registry.FOLDER}-*")]
    return [model for model in found if model.is_dir() and not model.is_symlink()]


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder, 0 where it is not there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
