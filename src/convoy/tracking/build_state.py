"""dvc.lock and reports -> what the pipeline has built for a task, baselines included, and what is missing."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.core import paths
from convoy.core import stage_names as stages
from convoy.core.paths import TASKS, Architecture, Split, Task
from convoy.tracking.provenance import Lock, same_file
from convoy.tracking.run_content import DataSet, RunContent, flat_metrics, read_json, read_run, texts, training_file

_CONTEXTS: dict[Split, str] = {"train": "training", "test": "test"}


@dataclass(frozen=True)
class Winner:
    """The bundle that was built for a task, the candidate it holds, and the record of its build."""

    architecture: Architecture
    folder: Path
    lock: Lock


@dataclass(frozen=True)
class BuildState:
    """What the pipeline has built for one task, and what it has not."""

    task: Task
    runs: dict[Architecture, RunContent]
    baselines: list[RunContent]
    winner: Winner | None
    missing: list[str]
    lock: Lock


def read_build_state(task: Task, lock: Lock) -> BuildState:
    """Read what is there for `task`; what is absent or older than its inputs is listed as missing."""
    missing: list[str] = []
    evaluated = _is_current(lock, stages.evaluate(task), missing)
    trained = [name for name in paths.architectures(task) if _is_trained(task, name, lock, missing)]
    winner = _read_winner(task, lock, trained, missing)
    runs = {
        name: read_run(task, name, lock, evaluated, winner is not None and winner.architecture == name, missing)
        for name in trained
    }
    baselines = _read_baselines(task, lock, missing)
    return BuildState(task, runs, baselines, winner, list(dict.fromkeys(missing)), lock)


def keys_of_lock(task: Task, lock: Lock) -> set[str]:
    """The keys of the runs that dvc.lock names, also of those whose weights or predictions are not here."""
    missing: list[str] = []
    reports = {stages.train(task, name): training_file(task, name) for name in paths.architectures(task)}
    keys = {
        read_json(path)["fingerprint"]
        for stage, path in reports.items()
        if _stage_matches_lock(stage, [path], lock, missing)
    }
    if _stage_matches_lock(stages.BASELINES, [paths.BASELINES], lock, missing):
        keys |= {run.key for run in read_baseline_runs(task, lock)}
    return keys


def read_baseline_runs(task: Task, lock: Lock) -> list[RunContent]:
    """A run per baseline, which is never registered; the caller has checked that the reports are those of dvc.lock."""
    figures = read_json(paths.BASELINES).get(task, {})
    params = lock.params(stages.BASELINES).get(stages.BASELINES, {})
    return [_baseline_run(task, name, figures[name], params, lock) for name in figures]


def matches_lock(path: Path, written: dict[str, str], missing: list[str]) -> bool:
    """Whether a file or folder is the one in dvc.lock; where it is not, a sentence is added to `missing`."""
    if not path.exists():
        missing.append(f"{path} is not there (`dvc checkout` brings back what is not in git)")
        return False
    if not same_file(path, written.get(str(path), "")):
        missing.append(f"{path} is not {'the folder' if path.is_dir() else 'the file'} that dvc.lock names")
        return False
    return True


def _is_trained(task: Task, architecture: Architecture, lock: Lock, missing: list[str]) -> bool:
    """Whether the weights of the training in dvc.lock are here; its reports prove nothing, since git holds them."""
    files = [training_file(task, architecture), paths.candidate(task, architecture) / "weights.safetensors"]
    return _stage_matches_lock(stages.train(task, architecture), files, lock, missing)


def _read_baselines(task: Task, lock: Lock, missing: list[str]) -> list[RunContent]:
    """The baselines whose figures (in git) and predictions (not in git) are here."""
    are_built = _stage_matches_lock(stages.BASELINES, [paths.BASELINES, paths.baselines(task)], lock, missing)
    return read_baseline_runs(task, lock) if are_built else []


def _baseline_run(task: Task, name: str, figures: dict[str, float], params: dict[str, Any], lock: Lock) -> RunContent:
    stage_names = [stages.fetch(task), stages.prepare(task), stages.BASELINES]
    baseline_params = {"seed": params["seed"], **params[task].get("counting", {}), **params[task][name]}
    made_ms = int(paths.BASELINES.stat().st_mtime * 1000)
    return RunContent(
        name=f"baseline-{name}",
        key=_baseline_key(task, name, baseline_params, lock),
        started_ms=made_ms,
        ended_ms=made_ms,
        params=texts({"baseline": name, **baseline_params}),
        tags={
            "convoy.task": task,
            "convoy.baseline": "true",
            "mlflow.source.name": f"dvc repro {stages.BASELINES}",
            "mlflow.source.type": "LOCAL",
        },
        metrics=flat_metrics(figures, "test"),
        data_sets=[
            DataSet(f"{task}-{split}", md5[:36], path, context)
            for split, context in _CONTEXTS.items()
            for path, md5 in lock.deps(stages.BASELINES).items()
            if path == str(paths.prepared(task, split))
        ],
        files={"dvc.lock": lock.excerpt(stage_names)},
        note=f"A simple model of the {task} split, the measure of the candidates beside it; it never serves.",
        changed_code=lock.changed_code(stage_names),
    )


def _baseline_key(task: Task, name: str, params: dict[str, Any], lock: Lock) -> str:
    """The sha256 of the inputs and params of this baseline, without what concerns other tasks alone."""
    other_tasks = [other for other in TASKS if other != task]
    hashes = lock.deps(stages.BASELINES)
    deps = {path: md5 for path, md5 in hashes.items() if not any(other in path for other in other_tasks)}
    content = {"task": task, "baseline": name, "params": params, "deps": deps}
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
    bundle, exported = paths.bundle(task), lock.outs(stages.export(task))
    if lock.deps(stages.evaluate(task)).get(str(bundle)) != exported.get(str(bundle)):
        missing.append(f"{stages.evaluate(task)} has not judged the bundle that {stages.export(task)} made")
        return False
    test_report = paths.reports(task) / "test.json"
    checks = [
        matches_lock(bundle, exported, missing),
        matches_lock(test_report, lock.outs(stages.evaluate(task)), missing),
    ]
    return all(checks)


def _read_winner(task: Task, lock: Lock, trained: list[Architecture], missing: list[str]) -> Winner | None:
    """The bundle that evaluate measured; None where it, its weights or its figures are not those of dvc.lock."""
    names = [*([stages.choose(task)] if stages.is_chosen(task) else []), stages.export(task), stages.evaluate(task)]
    current = [_is_current(lock, name, missing) for name in names]
    if not all(current) or not _is_evaluated(task, lock, missing):
        return None
    architecture = _chosen_architecture(task, lock, missing)
    if architecture not in trained:
        return None
    metrics = paths.reports(task) / architecture / "metrics.json"
    if not matches_lock(metrics, lock.outs(stages.train(task, architecture)), missing):
        return None
    return Winner(architecture, paths.bundle(task), lock)


def _chosen_architecture(task: Task, lock: Lock, missing: list[str]) -> Architecture | None:
    """The candidate that the bundle should hold: the chosen one, or the only one."""
    if not stages.is_chosen(task):
        return paths.architectures(task)[0]
    if not matches_lock(paths.choice(task), lock.outs(stages.choose(task)), missing):
        return None
    chosen: Architecture = read_json(paths.choice(task))["architecture"]
    return chosen
