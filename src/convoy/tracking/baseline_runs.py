"""dvc.lock and the reports of the stage baselines -> what MLflow should hold of each baseline of a task."""

import hashlib
import json
from typing import Any

from convoy.core import paths, stages
from convoy.core.paths import TASKS, Split, Task
from convoy.tracking.dvc_lock import Lock
from convoy.tracking.metric_names import numbers
from convoy.tracking.run_content import DataSet, RunContent, read_json, texts

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
        metrics=numbers(figures, "test"),
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
