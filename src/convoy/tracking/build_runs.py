"""A published state of dvc.lock -> a run `build` in MLflow, which says which stages ran and which were reused."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from convoy.core import paths, tasks
from convoy.tracking import mlflow_runs
from convoy.tracking.provenance import LOCK, GitState, Lock, same_file
from convoy.tracking.run_content import RunContent

NAME = "build"
BUILD = "convoy.build_run"  # of a version and of a candidate's run: the first build that held it
VERSION = "convoy.version"  # of a run: the version that holds what it made
LOCK_DIGEST = "convoy.dvc_lock"  # sha256 of the part of dvc.lock that concerns a task
STAGES = "convoy.stages"  # JSON, stage -> a digest of its entry in dvc.lock
_STAGE_PREFIX = "convoy.stage."
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

    @property
    def stages(self) -> list[str]:
        """The stages behind the bundle and its reports, each after those that it needs."""
        return self.lock.to_reports(self.task)

    @property
    def excerpt(self) -> bytes:
        """dvc.lock without the stages that belong to other tasks alone."""
        return self.lock.excerpt(self.stages)

    @property
    def reports(self) -> dict[str, Path | bytes]:
        """The small reports, which git keeps and DVC's cache does not: without them DVC would make everything again."""
        made = {path: md5 for name in self.stages for path, md5 in self.lock.outs(name).items()}
        kept = {
            path: md5 for path, md5 in made.items() if path.startswith("reports/") and path.endswith(_REPORT_SUFFIXES)
        }
        return {path: Path(path) for path, md5 in kept.items() if same_file(Path(path), md5)}

    @property
    def entries(self) -> dict[str, str]:
        """Stage -> a digest of its entry: what it ran, what it read, what it wrote."""
        return {name: mlflow_runs.digest_of(json.dumps(self.lock.stages[name]).encode()) for name in self.stages}


def record(
    client: MlflowClient, experiment: str, build: Build, version: ModelVersion, git: GitState | None
) -> tuple[Run, mlflow_runs.Added]:
    """Record the build's run in MLflow, and tag run, version and build with each other; a second call adds nothing."""
    content = _content(client, experiment, build, version)
    stored = mlflow_runs.find_run(client, experiment, content.key)
    if stored is None or mlflow_runs.SOURCES not in stored.data.tags:
        content = mlflow_runs.with_sources(content, git)
    run, added = mlflow_runs.complete_run(client, experiment, content)
    trained = build.runs[build.winner]
    added += _link_version(client, version, run, trained)
    for candidate_run in build.runs.values():
        added += _link_run(client, candidate_run, {BUILD: run.info.run_id})
    added += mlflow_runs.tag_run(client, trained, {VERSION: f"{version.name}/{version.version}"})
    return run, added


def summary(run: Run) -> str:
    """How many stages ran for a build, and which were reused, in plain words."""
    origins = {
        name.removeprefix(_STAGE_PREFIX): text for name, text in run.data.tags.items() if name.startswith(_STAGE_PREFIX)
    }
    reused = sorted(name for name, text in origins.items() if text.startswith("reused"))
    if not reused:
        return f"all {len(origins)} stages are new"
    return f"{len(origins) - len(reused)} of {len(origins)} stages ran, reused: {', '.join(reused)}"


def find_builds(client: MlflowClient, experiment: str) -> list[Run]:
    """The builds of a task, the oldest first."""
    return list(client.search_runs([experiment], f"tags.`{STAGES}` != ''", order_by=["attributes.start_time ASC"]))


def _content(client: MlflowClient, experiment: str, build: Build, version: ModelVersion) -> RunContent:
    lock_digest = hashlib.sha256(build.excerpt).hexdigest()
    earlier_builds = [run for run in find_builds(client, experiment) if run.data.tags.get(LOCK_DIGEST) != lock_digest]
    origins = {name: _stage_origin(name, entry, build, earlier_builds) for name, entry in build.entries.items()}
    made_ms = int(LOCK.stat().st_mtime * 1000)
    return RunContent(
        name=NAME,
        key=f"build:{lock_digest}",
        started_ms=made_ms,
        ended_ms=made_ms,
        tags={
            "convoy.task": build.task,
            "convoy.bundle_digest": build.digest,
            VERSION: f"{version.name}/{version.version}",
            "convoy.winner_run": build.runs[build.winner].info.run_id,
            LOCK_DIGEST: lock_digest,
            STAGES: json.dumps(build.entries),
            **{f"{_DVC_PREFIX}{path}": md5 for path, md5 in _data_hashes(build).items()},
            **{_STAGE_PREFIX + name.replace("@", "/"): text for name, (text, _) in origins.items()},
            "mlflow.source.name": "dvc repro",
            "mlflow.source.type": "LOCAL",
        },
        files={"dvc.lock": build.excerpt, **build.reports},
        note=_note(build, version, experiment, origins),
        changed_code=build.lock.changed_code(build.stages),
    )


def _stage_origin(stage: str, entry: str, build: Build, earlier_builds: Iterable[Run]) -> tuple[str, str | None]:
    """Whether a stage ran for this build, in words, and the run that shows what it made."""
    trained = {tasks.train_stage(candidate): run for candidate, run in build.runs.items()}
    run = trained.get(stage)
    first = next(
        (earlier for earlier in earlier_builds if json.loads(earlier.data.tags[STAGES]).get(stage) == entry), None
    )
    if first is None:
        return (f"ran: run {run.info.run_id}", run.info.run_id) if run else ("ran", None)
    shown = run or first
    return f"reused run {shown.info.run_id} of {_start_time(shown)}", shown.info.run_id


def _start_time(run: Run) -> str:
    return datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(sep=" ", timespec="minutes")


def _note(build: Build, version: ModelVersion, experiment: str, origins: Mapping[str, tuple[str, str | None]]) -> str:
    """What MLflow's UI shows as the run's description, in Markdown."""

    def with_link(text: str, run_id: str | None) -> str:
        return text.replace(run_id, f"[{run_id[:8]}](#/experiments/{experiment}/runs/{run_id})") if run_id else text

    rows = [f"| {name} | {with_link(text, run_id)} |" for name, (text, run_id) in origins.items()]
    title = f"[{version.name} {version.version}](#/models/{version.name}/versions/{version.version})"
    intro = f"What `dvc repro` built as {title}, bundle `{build.digest[:12]}`. A stage that DVC skipped was reused; "
    return "\n".join([f"{intro}`dvc.lock` among the artifacts has every hash.", "", "| stage | |", "|---|---|", *rows])


def _data_hashes(build: Build) -> dict[str, str]:
    """Path -> md5 of the data that the bundle comes from, and of the bundle."""
    return build.lock.outs_of(build.lock.to_bundle(build.task), "data/", f"{paths.bundle(build.task)}")


def _link_version(client: MlflowClient, version: ModelVersion, build: Run, trained: Run) -> mlflow_runs.Added:
    """Tag and describe the version; those of the first build that made it stay, as its files do."""
    build_id = version.tags.get(BUILD)
    if build_id and _exists(client, build_id):
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
    edited = {"false": "", "true": " with edits (`source.patch`)"}.get(build.data.tags.get(mlflow_runs.SOURCES, ""), "")
    return f"Trained as {links[0]}, built as {links[1]}, from git revision `{revision}`{edited}."


def _link_run(client: MlflowClient, run: Run, tags: dict[str, str]) -> mlflow_runs.Added:
    if run.data.tags.get(BUILD) and _exists(client, run.data.tags[BUILD]):
        return mlflow_runs.Added()
    return mlflow_runs.tag_run(client, run, tags)


def _exists(client: MlflowClient, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False
