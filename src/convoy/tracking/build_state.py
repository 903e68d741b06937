"""dvc.lock and reports -> what the pipeline has built for a task, baselines included, and what is missing."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.core import paths, tasks
from convoy.core.paths import Split
from convoy.core.tasks import Candidate, DataSet, Task
from convoy.tracking.provenance import Lock, same_file
from convoy.tracking.run_content import (
    DataFile,
    RunContent,
    flat_metrics,
    metrics_file,
    read_json,
    read_run,
    texts,
    training_key,
)

_CONTEXTS: dict[Split, str] = {"train": "training", "test": "test"}


@dataclass(frozen=True)
class Winner:
    """The bundle that was built for a task, and the candidate it holds."""

    candidate: str
    folder: Path


@dataclass(frozen=True)
class BuildState:
    """What the pipeline has built for one task, and what it has not; `candidates` are those of params.yaml."""

    task: str
    candidates: list[str]
    runs: dict[str, RunContent]
    baselines: list[RunContent]
    winner: Winner | None
    missing: list[str]
    lock: Lock


def read_build_state(name: str, lock: Lock) -> BuildState:
    """Read what is there for a task; what is absent or older than its inputs is listed as missing.

    Raises ParamsInvalid, TaskUnknown.
    """
    entries = tasks.read()
    task, candidates = entries.task(name), entries.of_task(name)
    missing: list[str] = []
    evaluated = _is_current(lock, task.evaluate, missing)
    trained = [candidate for candidate in candidates if _is_trained(candidate, lock, missing)]
    winner = _read_winner(task, lock, trained, missing)
    runs = {
        candidate.name: read_run(
            candidate, lock, evaluated, winner is not None and winner.candidate == candidate.name, missing
        )
        for candidate in trained
    }
    baselines = _read_baselines(task, entries.data[task.data], lock, missing)
    names = [candidate.name for candidate in candidates]
    return BuildState(name, names, runs, baselines, winner, list(dict.fromkeys(missing)), lock)


def keys_of_lock(name: str, lock: Lock) -> set[str]:
    """The keys of the runs that dvc.lock names, also of those whose weights or predictions are not here."""
    missing: list[str] = []
    entries = tasks.read()
    if name not in entries.tasks:
        return set()
    task = entries.tasks[name]
    data = entries.data[task.data]
    keys = {
        training_key(candidate)
        for candidate in entries.of_task(name)
        if _stage_matches_lock(candidate.train, [metrics_file(candidate)], lock, missing)
    }
    if _stage_matches_lock(data.baselines, [_baseline_figures(data)], lock, missing):
        keys |= {run.key for run in read_baseline_runs(task, data, lock)}
    return keys


def read_baseline_runs(task: Task, data: DataSet, lock: Lock) -> list[RunContent]:
    """A run per baseline, which is never registered; the caller has checked that the reports are those of dvc.lock."""
    figures = read_json(_baseline_figures(data)) or {}
    params = lock.params(data.baselines).get(f"data.{data.name}.baselines", {})
    return [_baseline_run(task, data, name, figures[name], params, lock) for name in figures]


def matches_lock(path: Path, written: dict[str, str], missing: list[str]) -> bool:
    """Whether a file or folder is the one in dvc.lock; where it is not, a sentence is added to `missing`."""
    if not path.exists():
        missing.append(f"{path} is not there (`dvc checkout` brings back what is not in git)")
        return False
    if not same_file(path, written.get(str(path), "")):
        missing.append(f"{path} is not {'the folder' if path.is_dir() else 'the file'} that dvc.lock names")
        return False
    return True


def _is_trained(candidate: Candidate, lock: Lock, missing: list[str]) -> bool:
    """Whether the weights of the training in dvc.lock are here; its reports prove nothing, since git holds them."""
    files = [metrics_file(candidate), paths.candidate(candidate.task, candidate.name)]
    return _stage_matches_lock(candidate.train, files, lock, missing)


def _read_baselines(task: Task, data: DataSet, lock: Lock, missing: list[str]) -> list[RunContent]:
    """The baselines whose figures (in git) and predictions (not in git) are here."""
    files = [_baseline_figures(data), paths.baselines(data.name) / "predictions.csv"]
    return read_baseline_runs(task, data, lock) if _stage_matches_lock(data.baselines, files, lock, missing) else []


def _baseline_figures(data: DataSet) -> Path:
    return paths.baselines(data.name) / "figures.json"


def _baseline_run(
    task: Task, data: DataSet, name: str, figures: dict[str, float], params: dict[str, Any], lock: Lock
) -> RunContent:
    stages = lock.behind(data.baselines)
    own_params = params.get("networks", params)  # of images each baseline is a network
    shared = {key: value for key, value in params.get("counting", {}).items()}
    baseline_params = {"seed": params.get("seed"), **shared, **own_params.get(name, {})}
    made_ms = int(_baseline_figures(data).stat().st_mtime * 1000)
    return RunContent(
        name=f"baseline-{name}",
        key=_baseline_key(task, data, name, baseline_params, lock),
        started_ms=made_ms,
        ended_ms=made_ms,
        params=texts({"baseline": name, **baseline_params}),
        tags={
            "convoy.task": task.name,
            "convoy.baseline": "true",
            "mlflow.source.name": f"dvc repro {data.baselines}",
            "mlflow.source.type": "LOCAL",
        },
        metrics=flat_metrics(figures, "test"),
        data_sets=[
            DataFile(f"{data.name}-{split}", md5[:36], path, context)
            for split, context in _CONTEXTS.items()
            for path, md5 in lock.deps(data.baselines).items()
            if path == str(paths.split_file(data.name, split))
        ],
        files={"dvc.lock": lock.excerpt(stages)},
        note=f"A simple model of the data set {data.name}, the measure of the candidates beside it; it never serves.",
        changed_code=lock.changed_code(stages),
    )


def _baseline_key(task: Task, data: DataSet, name: str, params: dict[str, Any], lock: Lock) -> str:
    """The sha256 of the inputs and params of this baseline."""
    content = {"task": task.name, "baseline": name, "params": params, "deps": lock.deps(data.baselines)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stage_matches_lock(stage: str, files: list[Path], lock: Lock, missing: list[str]) -> bool:
    """Whether a stage is up to date and these files of it are the ones that dvc.lock names."""
    return _is_current(lock, stage, missing) and all([matches_lock(path, lock.outs(stage), missing) for path in files])


def _is_current(lock: Lock, stage: str, missing: list[str]) -> bool:
    if stage not in lock.stages:
        missing.append(f"stage {stage} has not run")
        return False
    if outdated := lock.outdated(stage):
        missing.append(f"stage {stage} is older than {', '.join(outdated)}")
        return False
    return True


def _is_evaluated(task: Task, lock: Lock, missing: list[str]) -> bool:
    """Whether evaluate measured the bundle that export made and that is here, and its test report is still there."""
    bundle, exported = paths.bundle(task.name), lock.outs(task.export)
    if lock.deps(task.evaluate).get(str(bundle)) != exported.get(str(bundle)):
        missing.append(f"{task.evaluate} has not judged the bundle that {task.export} made")
        return False
    test_report = paths.reports(task.name) / "test.json"
    checks = [
        matches_lock(bundle, exported, missing),
        matches_lock(test_report, lock.outs(task.evaluate), missing),
    ]
    return all(checks)


def _read_winner(task: Task, lock: Lock, trained: list[Candidate], missing: list[str]) -> Winner | None:
    """The bundle that evaluate measured; None where it, its weights or its figures are not those of dvc.lock."""
    current = [_is_current(lock, name, missing) for name in (task.choose, task.export, task.evaluate)]
    if not all(current) or not _is_evaluated(task, lock, missing):
        return None
    if not matches_lock(paths.choice(task.name), lock.outs(task.choose), missing):
        return None
    name = read_json(paths.choice(task.name))["candidate"]
    chosen = next((candidate for candidate in trained if candidate.name == name), None)
    if chosen is None or not _is_as_trained(task, chosen, lock, missing):
        return None
    return Winner(name, paths.bundle(task.name))


def _is_as_trained(task: Task, chosen: Candidate, lock: Lock, missing: list[str]) -> bool:
    """Whether what `choose` copied is what the training in dvc.lock made."""
    winner, trained = paths.winner(task.name), paths.candidate(task.name, chosen.name)
    if lock.outs(task.choose).get(str(winner)) == lock.outs(chosen.train).get(str(trained)):
        return True
    missing.append(f"stage {task.choose} is older than {trained}")
    return False
