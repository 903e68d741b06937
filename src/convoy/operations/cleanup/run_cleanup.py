"""Versions and runs in MLflow, with their sizes, and their removal in steps that a kill may interrupt."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion

from convoy.tracking import artifacts, mlflow_runs, registry

RETIRED = "convoy.gc"  # tag of a run that is being removed: `model`, its bundle, or `run`, all of it
_OUR_TAGS = ("convoy.architecture", "convoy.baseline")  # other runs are a person's own, or a log of builds
_PAGE = 1000


class RetiringFailed(RuntimeError):
    """A run's files lie where nothing is removed."""


@dataclass(frozen=True)
class StoredRun:
    """A run, with the bytes of its artifacts and those of the bundles among them."""

    run: Run
    folder: Path | None  # None where it is outside the artifact root: then nothing is removed
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
        return (
            ended and mlflow_runs.RUN_KEY in self.run.data.tags and any(tag in self.run.data.tags for tag in _OUR_TAGS)
        )


def made_at(version: ModelVersion) -> datetime:
    """When a version was last written to, as by a decision."""
    return datetime.fromtimestamp(max(version.creation_timestamp, version.last_updated_timestamp or 0) / 1000, UTC)


def runs(client: MlflowClient, task: str) -> list[StoredRun]:
    """Every run of a task's experiment that is not in MLflow's bin."""
    return [_stored_run(run) for run in _search_runs(client, task, "", ViewType.ACTIVE_ONLY)]


def _stored_run(run: Run) -> StoredRun:
    folder = artifacts.folder_of(run)
    if folder is None:
        return StoredRun(run, None, 0, {})
    return StoredRun(run, folder, size_of(folder), {model.name: size_of(model) for model in _model_folders(folder)})


def retire_version(client: MlflowClient, task: str, version: ModelVersion) -> None:
    """Remove a version from the registry, and its bundle from its run; the run stays."""
    run_id = str(version.run_id)
    client.set_tag(run_id, RETIRED, "model")
    client.delete_model_version(version.name, str(version.version))
    _remove_models(client, task, client.get_run(run_id))


def retire_runs(client: MlflowClient, run_ids: Sequence[str]) -> None:
    """Remove runs with their files. Raises RetiringFailed, before any change, where files lie elsewhere."""
    retired = [client.get_run(run_id) for run_id in run_ids]
    for run in retired:
        if artifacts.folder_of(run) is None:
            raise RetiringFailed(f"the files of run {run.info.run_id} are at {run.info.artifact_uri}; it stays")
    for run_id in run_ids:
        client.set_tag(run_id, RETIRED, "run")
        client.delete_run(run_id)
    _empty_bin(client, retired)


def finish(client: MlflowClient, task: str) -> int:
    """Finish the removals that a kill interrupted; gives the number of runs.

    A removal that was not yet begun is judged again.
    """
    tagged = _search_runs(client, task, f"tags.`{RETIRED}` != ''", ViewType.ALL)
    marked = [run for run in tagged if artifacts.folder_of(run) is not None]
    binned = [run for run in marked if run.info.lifecycle_stage == "deleted"]
    for run in marked:
        if run.info.lifecycle_stage == "deleted":
            continue
        if run.data.tags[RETIRED] == "model":
            _remove_models(client, task, run)
        else:
            client.delete_tag(run.info.run_id, RETIRED)
    _empty_bin(client, binned)
    return len(marked)


def _remove_models(client: MlflowClient, task: str, run: Run) -> None:
    """Remove the bundles of a run that no version names."""
    kept = {registry.model_folder(version) for version in registry.versions(client, task, run.info.run_id)}
    for model in _model_folders(artifacts.folder_of(run)):
        if model.name not in kept:
            shutil.rmtree(model)
    client.delete_tag(run.info.run_id, RETIRED)


def _empty_bin(client: MlflowClient, runs: Sequence[Run]) -> None:
    """Remove these runs alone, files first. Other runs in MLflow's bin stay there.

    `mlflow gc --run-ids` would also remove every experiment and logged model in the bin, at any path in the database.
    """
    store: Any = client._tracking_client.store
    for run in runs:
        folder = artifacts.folder_of(run)
        if folder is not None:
            if folder.parent.exists():
                shutil.rmtree(folder.parent)
            store._hard_delete_run(run.info.run_id)  # as `mlflow gc` does; MLflow has no public call for it


def _search_runs(client: MlflowClient, task: str, filter_string: str, view: int) -> Iterator[Run]:
    experiment = client.get_experiment_by_name(mlflow_runs.experiment_name(task))
    if experiment is None:
        return
    ids = [experiment.experiment_id]
    token: str | None = None
    while True:
        page = client.search_runs(ids, filter_string, view, _PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _model_folders(folder: Path | None) -> list[Path]:
    """The models among a run's files, without links."""
    folders = [] if folder is None else [*folder.glob(registry.FOLDER), *folder.glob(f"{registry.FOLDER}-*")]
    return [model for model in folders if model.is_dir() and not model.is_symlink()]


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder, 0 where it is not there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
