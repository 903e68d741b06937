"""Content of runs -> MLflow, each run found by its key and completed where something is missing."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunStatus, RunTag, ViewType

from convoy.bundles.bundle import MANIFEST
from convoy.core import atomic, tasks
from convoy.core.process import process_tags
from convoy.tracking import settings
from convoy.tracking.artifacts import StoreMoved, list_files, put_files
from convoy.tracking.checked_bundle import CheckedBundle
from convoy.tracking.provenance import GitState
from convoy.tracking.run_content import DataFile, RunContent, texts

RUN_KEY = "convoy.run_key"
SOURCES = "convoy.git_dirty"  # written once, when the run is first published
END_REASON = "convoy.end_reason"  # why a training failed, or a run was killed
MADE_FROM = "convoy.made_from"  # of a run that no training wrote while it went on
PATCH = "source.patch"  # the edits to the git revision
FILES = "convoy.files"  # JSON, artifact -> digest of its content, so that a changed report is written again
_MADE_FROM_FILES = "files that lay there when it was published; where they were made is not recorded"
_BATCH_SIZE = 100  # MLflow takes 100 params, 100 tags and 1,000 metrics at once

Added = Counter[str]


def open_store() -> MlflowClient:
    """A client of the store that tracking.settings names, which is made where it is missing.

    The caller holds locks.hold_deployed(): MLflow's making of its tables survives neither a second process nor a kill.
    """
    uri, database = settings.tracking_uri(), settings.database()
    if database is not None and not database.exists():
        if database == settings.DATABASE.absolute():
            database.parent.mkdir(exist_ok=True)
        with atomic.new_file(database) as temporary:
            MlflowClient(tracking_uri=f"sqlite:///{temporary}", registry_uri=f"sqlite:///{temporary}")
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_name(task: str) -> str:
    """The name of the experiment that holds all runs of a task."""
    return f"convoy-{task}"


def experiment_of(client: MlflowClient, task: str) -> str:
    """The id of a task's experiment, made or brought back from the bin where needed."""
    return experiment_named(client, experiment_name(task))


def experiment_named(client: MlflowClient, name: str) -> str:
    """The id of an experiment, made or brought back from the bin where needed. Raises StoreMoved."""
    local = settings.is_local(client.tracking_uri)
    location = (settings.artifact_root() / name).as_uri() if local else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name, artifact_location=location))
    if location is not None and experiment.artifact_location not in (location, _former_location(name)):
        stored_folder = unquote(urlparse(experiment.artifact_location).path)
        raise StoreMoved(
            f"{settings.database()} keeps the files of {name} under {stored_folder}, this folder's are under "
            f"{settings.artifact_root()}: MLflow notes absolute paths. Move the repository back, or move "
            "the database and mlruns away and run `python -m convoy publish`, which makes them anew."
        )
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _former_location(name: str) -> str | None:
    """Where the files of an experiment lie that had another name when it was made."""
    former = tasks.FORMER_NAMES.get(name.removeprefix("convoy-"))
    return (settings.artifact_root() / experiment_name(former)).as_uri() if former else None


def find_runs(client: MlflowClient, experiment_id: str, key: str) -> list[Run]:
    """The runs with this key, the right one first; deleted ones do not count.

    There is a second one only where a server made a run so late that its client had repeated the request.
    """
    runs = client.search_runs([experiment_id], f"tags.`{RUN_KEY}` = '{key}'", ViewType.ACTIVE_ONLY)
    return sorted(runs, key=lambda run: (run.info.status != "FINISHED", run.info.start_time, run.info.run_id))


def find_run(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """The run with this key."""
    return next(iter(find_runs(client, experiment_id, key)), None)


def _as_is(content: RunContent) -> RunContent:
    return content


def complete_run(
    client: MlflowClient,
    experiment_id: str,
    content: RunContent,
    add_sources: Callable[[RunContent], RunContent] = _as_is,
) -> tuple[Run, Added]:
    """Make the run where it is missing, add what it lacks, and count what was added.

    `add_sources`, as `with_sources`, is applied where the run does not name its sources yet.
    """
    added = Added()
    runs = find_runs(client, experiment_id, content.key)
    if not runs or SOURCES not in runs[0].data.tags:
        content = add_sources(content)
    for twin in runs[1:]:
        client.delete_run(twin.info.run_id)
    run = runs[0] if runs else make_run(client, experiment_id, content, {MADE_FROM: _MADE_FROM_FILES})
    added["run"] = 0 if runs else 1
    if run.info.status == RunStatus.to_string(RunStatus.RUNNING):
        tag_run(client, run, process_tags())
    add_values(client, run, content, added)
    _add_data_sets(client, run, content.data_sets, added)
    _add_files(client, run, content.files, added)
    _add_tags(client, run, {**content.tags, "mlflow.note.content": content.note}, added)
    if run.info.status != RunStatus.to_string(RunStatus.FINISHED):
        ended_ms = run.info.start_time + content.ended_ms - content.started_ms
        client.set_terminated(run.info.run_id, end_time=ended_ms)
        if END_REASON in run.data.tags:
            client.delete_tag(run.info.run_id, END_REASON)
    is_changed = any(added.values()) or run.info.status != RunStatus.to_string(RunStatus.FINISHED)
    return (client.get_run(run.info.run_id) if is_changed else run), added


def make_run(client: MlflowClient, experiment_id: str, content: RunContent, tags: dict[str, str] | None = None) -> Run:
    """A new run that can be found by its key from the start, with the tags that it must never lack.

    It belongs to this process where the tags name no other.
    """
    tags = {RUN_KEY: content.key, **process_tags(), **(tags or {})}
    return client.create_run(experiment_id, content.started_ms, tags, content.name)


def reopen(client: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    """Let an ended run continue as one of the process that the tags name; a second call changes nothing."""
    tag_run(client, run, tags)
    for outdated in {END_REASON, MADE_FROM} & set(run.data.tags):
        client.delete_tag(run.info.run_id, outdated)
    if run.info.status != RunStatus.to_string(RunStatus.RUNNING):
        client.update_run(run.info.run_id, RunStatus.to_string(RunStatus.RUNNING))


def with_sources(content: RunContent, git: GitState | None) -> RunContent:
    """The content with the state of the sources: revision, whether they differed from it, and by what.

    The state is the present one: where the code has changed since it made the content, none is claimed.
    """
    if content.changed_code:
        reason = f"unknown: changed between training and publishing: {', '.join(content.changed_code)}"
        return replace(content, tags={**content.tags, SOURCES: reason})
    if git is None:
        return replace(content, tags={**content.tags, SOURCES: "unknown: no git repository"})
    tags = {"convoy.git_revision": git.revision, "mlflow.source.git.commit": git.revision}
    files = {} if git.patch is None else {PATCH: git.patch}
    if git.dirty and git.patch is None:
        tags["convoy.source_patch"] = "too large, not kept"
    tags[SOURCES] = json.dumps(git.dirty)
    return replace(content, tags={**content.tags, **tags}, files={**content.files, **files})


def run_of_bundle(bundle: CheckedBundle, task: str) -> RunContent:
    """A run for a bundle whose candidate is no longer in dvc.lock: what its card says."""
    card = bundle.card
    ended_ms = int((bundle.folder / MANIFEST).stat().st_mtime * 1000)
    return RunContent(
        name=card.candidate or f"{card.task}-{card.architecture}",
        key=f"bundle:{bundle.digest}",
        started_ms=ended_ms,
        ended_ms=ended_ms,
        params={"architecture": card.architecture, **texts(card.params)},
        tags={
            "convoy.task": task,
            "convoy.architecture": card.architecture,
            "convoy.candidate": card.candidate or "",
            "convoy.bundle_digest": bundle.digest,
        },
        note="Brought back from the bundle that serves; the figures of its training are not in this tree.",
    )


def tag_run(client: MlflowClient, run: Run, tags: dict[str, str]) -> Added:
    """Set the tags that a run lacks or that differ."""
    changed = {name: value for name, value in tags.items() if run.data.tags.get(name) != value}
    for name, value in changed.items():
        client.set_tag(run.info.run_id, name, value)
    return Added(tags=len(changed)) if changed else Added()


def add_values(client: MlflowClient, run: Run, content: RunContent, added: Added) -> None:
    """Add the params, points and figures that the run lacks.

    Two processes may add at the same time: a point's time is fixed, and MLflow keeps equal points once.
    """
    params = [Param(name, value) for name, value in content.params.items() if name not in run.data.params]
    metrics = [*_missing_points(client, run, content), *_missing_metrics(client, run, content)]
    for start in range(0, max(len(params), len(metrics)), _BATCH_SIZE):
        batch = slice(start, start + _BATCH_SIZE)
        client.log_batch(run.info.run_id, metrics=metrics[batch], params=params[batch])
    added.update({"params": len(params), "metric points": len(metrics)})


def _add_tags(client: MlflowClient, run: Run, wanted: dict[str, str], added: Added) -> None:
    """Add the tags after the files, so that a run that names its sources has its source.patch."""
    tags = [RunTag(name, value) for name, value in wanted.items() if name not in run.data.tags]
    if tags:
        client.log_batch(run.info.run_id, tags=tags)
        added["tags"] = len(tags)


def _missing_points(client: MlflowClient, run: Run, content: RunContent) -> list[Metric]:
    """Points of curves whose step MLflow lacks; timestamps count from the run's start, so they are stable."""
    missing = []
    for name, points in content.curves.items():
        stored_steps: set[int] = set()
        if name in run.data.metrics:
            stored_steps = {metric.step for metric in client.get_metric_history(run.info.run_id, name)}
        missing += [
            Metric(name, value, run.info.start_time + elapsed_ms, step)
            for step, elapsed_ms, value in points
            if step not in stored_steps
        ]
    return missing


def _missing_metrics(client: MlflowClient, run: Run, content: RunContent) -> list[Metric]:
    """Final figures that are absent or have changed; a repeated evaluation gets the next step, so it is the latest."""
    ended_ms = run.info.start_time + content.ended_ms - content.started_ms
    missing = []
    for name, value in content.metrics.items():
        if name not in run.data.metrics:
            missing.append(Metric(name, value, ended_ms, 0))
        elif run.data.metrics[name] != value:
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            missing.append(Metric(name, value, ended_ms, max(steps, default=-1) + 1))
    return missing


def _add_data_sets(client: MlflowClient, run: Run, data_sets: list[DataFile], added: Added) -> None:
    stored = {(item.dataset.name, item.dataset.digest) for item in run.inputs.dataset_inputs} if run.inputs else set()
    missing = [item for item in data_sets if (item.name, item.digest) not in stored]
    inputs = [
        DatasetInput(
            Dataset(item.name, item.digest, "local", json.dumps({"uri": item.path})),
            [InputTag("mlflow.data.context", item.context)],
        )
        for item in missing
    ]
    if inputs:
        client.log_inputs(run.info.run_id, inputs)
        added["data sets"] = len(inputs)


def _add_files(client: MlflowClient, run: Run, files: dict[str, Path | bytes], added: Added) -> None:
    digests = json.loads(run.data.tags.get(FILES, "{}"))
    sizes = list_files(client, run)
    contents = {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in files.items()}
    missing = {
        name: content
        for name, content in contents.items()
        if sizes.get(name) != len(content) or digests.get(name) != digest_of(content)
    }
    if missing:
        put_files(client, run.info.run_id, missing)
        digests |= {name: digest_of(content) for name, content in missing.items()}
        client.set_tag(run.info.run_id, FILES, json.dumps(digests, sort_keys=True))
        added["files"] = len(missing)


def digest_of(content: bytes) -> str:
    """A short name for a content: the first 16 hexadecimal digits of its sha256."""
    return hashlib.sha256(content).hexdigest()[:16]
