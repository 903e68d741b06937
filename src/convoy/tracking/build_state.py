"""dvc.lock and reports -> what the pipeline has built for a task, its baselines included, and what it has not."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.core import paths, stages
from convoy.core.paths import TASKS, Architecture, Split, Task
from convoy.tracking.provenance import Lock, same_file
from convoy.tracking.run_content import DataSet, RunContent, flat_metrics, read_json, read_run, texts, training_file

_CONTEXTS: dict[Split, str] = {"train": "training", "test": "test"}


def read_baseline_runs(task: Task, lock: Lock) -> list[RunContent]:
    """A run per baseline, which is never registered; the caller has seen that the reports are those of dvc.lock."""
    figures = read_json(paths.BASELINES).get(task, {})
    params = lock.params(stages.BASELINES).get(stages.BASELINES, {})
    return [_run(task, name, figures[name], params, lock) for name in figures]


def _run(task: Task, name: str, figures: dict[str, float], params: dict[str, Any], lock: Lock) -> RunContent:
    behind = [stages.fetch(task), stages.prepare(task), stages.BASELINES]
    own = {"seed": params["seed"], **params[task].get("counting", {}), **params[task][name]}
    made_ms = int(paths.BASELINES.stat().st_mtime * 1000)
    return RunContent(
        name=f"baseline-{name}",
        key=_key(task, name, own, lock),
        started_ms=made_ms,
        ended_ms=made_ms,
        params=texts({"baseline": name, **own}),
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
        files={"dvc.lock": lock.excerpt(behind)},
        note=f"A simple model of the {task} split, the measure of the candidates beside it; it never serves.",
        changed_code=lock.changed_code(behind),
    )


def _key(task: Task, name: str, params: dict[str, Any], lock: Lock) -> str:
    """The sha256 of what this baseline read and was told: what concerns the other task alone is no part of it."""
    others = [other for other in TASKS if other != task]
    read = lock.deps(stages.BASELINES)
    deps = {path: md5 for path, md5 in read.items() if not any(other in path for other in others)}
    content = {"task": task, "baseline": name, "params": params, "deps": deps}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    """Read what is there for `task`; what is absent or older than its inputs is named, not guessed."""
    missing: list[str] = []
    evaluated = _is_current(lock, stages.evaluate(task), missing)
    trained = [each for each in paths.architectures(task) if _is_trained(task, each, lock, missing)]
    winner = _winner(task, lock, trained, missing)
    runs = {
        each: read_run(task, each, lock, evaluated, winner is not None and winner.architecture == each, missing)
        for each in trained
    }
    baselines = _read_baselines(task, lock, missing)
    return BuildState(task, runs, baselines, winner, list(dict.fromkeys(missing)), lock)


def keys_of_lock(task: Task, lock: Lock) -> set[str]:
    """The keys of the runs that dvc.lock names, also of those whose weights or predictions do not lie here now."""
    missing: list[str] = []
    reports = {stages.train(task, each): training_file(task, each) for each in paths.architectures(task)}
    keys = {read_json(path)["fingerprint"] for name, path in reports.items() if _is_proven(name, [path], lock, missing)}
    if _is_proven(stages.BASELINES, [paths.BASELINES], lock, missing):
        keys |= {run.key for run in read_baseline_runs(task, lock)}
    return keys


def _is_trained(task: Task, architecture: Architecture, lock: Lock, missing: list[str]) -> bool:
    """Whether the training that dvc.lock names has its weights here; its reports prove nothing, git brings them."""
    files = [training_file(task, architecture), paths.candidate(task, architecture) / "weights.safetensors"]
    return _is_proven(stages.train(task, architecture), files, lock, missing)


def _read_baselines(task: Task, lock: Lock, missing: list[str]) -> list[RunContent]:
    """The baselines whose figures, which git brings, and predictions, which it does not, lie here."""
    proven = _is_proven(stages.BASELINES, [paths.BASELINES, paths.baselines(task)], lock, missing)
    return read_baseline_runs(task, lock) if proven else []


def _is_proven(name: str, paths: list[Path], lock: Lock, missing: list[str]) -> bool:
    """Whether a stage is up to date and these of its files are the ones that dvc.lock names."""
    return _is_current(lock, name, missing) and all([is_of_lock(path, lock.outs(name), missing) for path in paths])


def _is_current(lock: Lock, name: str, missing: list[str]) -> bool:
    if name not in lock.stages:
        missing.append(f"stage {name} has not run")
        return False
    if outdated := lock.outdated(name):
        missing.append(f"stage {name} is older than {', '.join(outdated)}")
        return False
    return True


def _is_judged(task: Task, lock: Lock, missing: list[str]) -> bool:
    """Whether evaluate judged the very bundle that export made and that lies here, and its verdict is still there."""
    bundle, exported = paths.bundle(task), lock.outs(stages.export(task))
    if lock.deps(stages.evaluate(task)).get(str(bundle)) != exported.get(str(bundle)):
        missing.append(f"{stages.evaluate(task)} has not judged the bundle that {stages.export(task)} made")
        return False
    verdict = paths.reports(task) / "test.json"
    found = [
        is_of_lock(bundle, exported, missing),
        is_of_lock(verdict, lock.outs(stages.evaluate(task)), missing),
    ]
    return all(found)


def is_of_lock(path: Path, written: dict[str, str], missing: list[str]) -> bool:
    """Whether a file or folder is the one that DVC wrote down; where it is not, `missing` gets a sentence."""
    if not path.exists():
        missing.append(f"{path} is not there (`dvc checkout` brings back what is not in git)")
        return False
    if not same_file(path, written.get(str(path), "")):
        missing.append(f"{path} is not {'the folder' if path.is_dir() else 'the file'} that dvc.lock names")
        return False
    return True


def _winner(task: Task, lock: Lock, trained: list[Architecture], missing: list[str]) -> Winner | None:
    """The bundle that evaluate judged; None where it, its weights or its figures are not those of dvc.lock."""
    names = [*([stages.choose(task)] if stages.is_chosen(task) else []), stages.export(task), stages.evaluate(task)]
    current = [_is_current(lock, name, missing) for name in names]
    if not all(current) or not _is_judged(task, lock, missing):
        return None
    architecture = _chosen(task, lock, missing)
    if architecture not in trained:
        return None
    metrics = paths.reports(task) / architecture / "metrics.json"
    if not is_of_lock(metrics, lock.outs(stages.train(task, architecture)), missing):
        return None
    return Winner(architecture, paths.bundle(task), lock)


def _chosen(task: Task, lock: Lock, missing: list[str]) -> Architecture | None:
    """The candidate that the bundle should hold: the one that was chosen, or the only one."""
    if not stages.is_chosen(task):
        return paths.architectures(task)[0]
    if not is_of_lock(paths.choice(task), lock.outs(stages.choose(task)), missing):
        return None
    chosen: Architecture = read_json(paths.choice(task))["architecture"]
    return chosen
