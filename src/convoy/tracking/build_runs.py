"""A published state of dvc.lock -> a run `build` in MLflow: the parent of its candidates, with the winner's figures."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from convoy.core import paths
from convoy.tracking import mlflow_runs
from convoy.tracking.provenance import LOCK, GitState, Lock, same_file
from convoy.tracking.run_content import RunContent

NAME = "build"
BUILD = "convoy.build_run"  # of a version and of a candidate's run: the first build that held it
VERSION = "convoy.version"  # of a run: the version that holds what it made
LOCK_DIGEST = "convoy.dvc_lock"  # sha256 of the part of dvc.lock that concerns a task
HEADLINES = ("accuracy", "macro_f1", "log_loss")  # of the winner, on the validation and the test split
_PARENT = "mlflow.parentRunId"
_DVC_PREFIX = "convoy.dvc."
_REPORT_SUFFIXES = (".json", "/curves.csv")
_REVISION_TAG = "convoy.git_revision"


@dataclass(frozen=True)
class Build:
    """A bundle with what dvc.lock says of how it was made."""

    task: str
    lock: Lock
    digest: str
    runs: Mapping[str, Run]  # of the candidates, by their names
    winner: str
    git: GitState | None

    @cached_property
    def stages(self) -> list[str]:
        """The stages behind the bundle and its reports, each after those that it needs."""
        return self.lock.to_reports(self.task)

    @cached_property
    def excerpt(self) -> bytes:
        """dvc.lock without the stages that belong to other tasks alone."""
        return self.lock.excerpt(self.stages)

    @property
    def sources(self) -> dict[str, bytes]:
        """What stands beside the version: dvc.lock, and the edits where there are any that made it."""
        changed = self.lock.changed_code(self.stages)
        patch = None if self.git is None or changed else self.git.patch
        return {**({} if patch is None else {mlflow_runs.PATCH: patch}), str(LOCK): self.excerpt}

    @property
    def reports(self) -> dict[str, Path | bytes]:
        """The small reports, which git keeps and DVC's cache does not: without them DVC would make everything again."""
        made = {path: md5 for name in self.stages for path, md5 in self.lock.outs(name).items()}
        kept = {
            path: md5 for path, md5 in made.items() if path.startswith("reports/") and path.endswith(_REPORT_SUFFIXES)
        }
        return {path: Path(path) for path, md5 in kept.items() if same_file(Path(path), md5)}


def record(client: MlflowClient, experiment: str, build: Build, version: ModelVersion) -> tuple[Run, mlflow_runs.Added]:
    """Record the build's run in MLflow, and tag run, version and build with each other; a second call adds nothing."""
    content = _content(build, version)
    run, added = mlflow_runs.complete_run(client, experiment, content, partial(mlflow_runs.with_sources, git=build.git))
    trained = build.runs[build.winner]
    added += _link_version(client, version, run, trained)
    for candidate_run in build.runs.values():
        added += _link_run(client, candidate_run, run.info.run_id)
    added += mlflow_runs.tag_run(client, trained, {VERSION: f"{version.name}/{version.version}"})
    return run, added


def _content(build: Build, version: ModelVersion) -> RunContent:
    lock_digest = hashlib.sha256(build.excerpt).hexdigest()
    made_ms = int(LOCK.stat().st_mtime * 1000)
    winner = build.runs[build.winner]
    names = [f"{split}/{name}" for split in ("validation", "test") for name in HEADLINES]
    title = f"[{version.name} {version.version}](#/models/{version.name}/versions/{version.version})"
    return RunContent(
        name=NAME,
        key=f"build:{lock_digest}",
        started_ms=made_ms,
        ended_ms=made_ms,
        metrics={name: winner.data.metrics[name] for name in names if name in winner.data.metrics},
        tags={
            "convoy.task": build.task,
            "convoy.bundle_digest": build.digest,
            VERSION: f"{version.name}/{version.version}",
            "convoy.winner_run": winner.info.run_id,
            LOCK_DIGEST: lock_digest,
            **{f"{_DVC_PREFIX}{path}": md5 for path, md5 in _data_hashes(build).items()},
            "mlflow.source.name": "dvc repro",
            "mlflow.source.type": "LOCAL",
        },
        files=build.reports,
        note=f"What `dvc repro` built as {title}, bundle `{build.digest[:12]}`, with the figures of {build.winner}. "
        f"`{LOCK}` beside the version has every hash.",
        changed_code=build.lock.changed_code(build.stages),
    )


def _data_hashes(build: Build) -> dict[str, str]:
    """Path -> md5 of the data that the bundle comes from, and of the bundle."""
    return build.lock.outs_of(build.lock.to_bundle(build.task), "data/", f"{paths.bundle(build.task)}")


def _link_version(client: MlflowClient, version: ModelVersion, build: Run, trained: Run) -> mlflow_runs.Added:
    """Tag and describe the version; those of the first build that made it stay, as its files do."""
    build_id = version.tags.get(BUILD)
    if build_id == build.info.run_id or (build_id and _exists(client, build_id)):
        return mlflow_runs.Added()
    copied = (LOCK_DIGEST, _REVISION_TAG, mlflow_runs.SOURCES)
    tags = {name: text for name, text in build.data.tags.items() if name in copied or name.startswith(_DVC_PREFIX)}
    tags[BUILD] = build.info.run_id
    changed = {name: text for name, text in tags.items() if version.tags.get(name) != text}
    for name, text in changed.items():
        client.set_model_version_tag(version.name, str(version.version), name, text)
    client.update_model_version(version.name, str(version.version), _description(build, trained))
    return mlflow_runs.Added({"tags of the version": len(changed)})


def _description(build: Run, trained: Run) -> str:
    links = [
        f"[{run.info.run_name}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"
        for run in (trained, build)
    ]
    revision = build.data.tags.get(_REVISION_TAG, "unknown")
    dirty = build.data.tags.get(mlflow_runs.SOURCES, "")
    edited = {"false": "", "true": f" with edits (`{mlflow_runs.PATCH}`)"}.get(dirty, "")
    return f"Trained as {links[0]}, built as {links[1]}, from git revision `{revision}`{edited}."


def _link_run(client: MlflowClient, run: Run, build_id: str) -> mlflow_runs.Added:
    """Make a candidate's run a child of the build; of several builds the first stays its parent."""
    parent = run.data.tags.get(BUILD)
    if parent == build_id or (parent and _exists(client, parent)):
        return mlflow_runs.Added()
    return mlflow_runs.tag_run(client, run, {BUILD: build_id, _PARENT: build_id})


def _exists(client: MlflowClient, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False
