"""Brings a checkout to the present names of tasks: deployed/ with its history, MLflow's models and experiments."""

import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment

from convoy.core import paths, tasks
from convoy.core.params import ParamsInvalid
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.release import deployment, registry_sync
from convoy.tracking import mlflow_runs, registry
from convoy.tracking.settings import model_name

# What stages of the former names wrote, and no stage reads any more; DVC and git know it by older revisions.
_FORMER_OUTPUTS = (
    "bundles/{0}",
    "candidates/{0}-cnn",
    "candidates/{0}-lstm",
    "data/raw/{0}",
    "data/prepared/{0}",
    "reports/{0}",
    "reports/baselines/{0}.csv",
)


class RenamingRefused(RuntimeError):
    """Both names of a task are in use, so that one would replace the other."""


def rename_tasks(client: MlflowClient, say: Say) -> None:
    """Rename each task that has its former name; a second call, also after a kill, does what is left.

    The caller holds locks.hold_deployed(). Raises RenamingRefused before anything of a task is changed.
    """
    changed = []
    for task, former in tasks.FORMER_NAMES.items():
        _refuse_both(client, task, former)
        done = [
            *_rename_deployed(task, former),
            *_rename_model(client, task, former),
            *_rename_experiment(client, task, former),
            *_rename_decisions(client, task, former),
        ]
        for line in done:
            say(f"{former} -> {task}: {line}")
        _name_both_experiments(client, task, former, say)
        changed += [task] if done else []
    if not changed:
        say("every task has its present name already; nothing to do")
    try:
        entries = tasks.read()
    except ParamsInvalid:  # which cannot say what is in use
        return
    if unused := _unused_outputs(entries):
        say(f"no stage uses these any more: rm -r {' '.join(unused)}")
    if entries.tasks.keys() & changed:
        say("next: dvc repro, then python -m convoy publish")


def _refuse_both(client: MlflowClient, task: str, former: str) -> None:
    both = os.path.lexists(DEPLOYED / former) and (DEPLOYED / task).exists() and any((DEPLOYED / task).iterdir())
    if both:
        raise RenamingRefused(
            f"{DEPLOYED / former} and {DEPLOYED / task} are both there; move the one that you do not need away, "
            "then run this again"
        )
    if registry.has_model(client, model_name(former)) and registry.has_model(client, model_name(task)):
        raise RenamingRefused(
            f"MLflow has the registered models {model_name(former)} and {model_name(task)}; delete or rename one there"
        )


def _rename_deployed(task: str, former: str) -> list[str]:
    done = []
    if os.path.lexists(DEPLOYED / former):
        if (DEPLOYED / task).exists():
            (DEPLOYED / task).rmdir()
        (DEPLOYED / former).rename(DEPLOYED / task)
        done.append(f"{DEPLOYED / former} is {DEPLOYED / task} now, with its history")
    renamed = deployment.rename_releases(task, model_name(task))
    return [*done, *([f"the releases of {renamed} bundles name the model {model_name(task)}"] if renamed else [])]


def _rename_model(client: MlflowClient, task: str, former: str) -> list[str]:
    if not registry.has_model(client, model_name(former)):
        return []
    client.rename_registered_model(model_name(former), model_name(task))
    return [f"MLflow's registered model {model_name(former)} is {model_name(task)} now, with its versions and aliases"]


def _rename_experiment(client: MlflowClient, task: str, former: str) -> list[str]:
    """MLflow keeps the names of experiments in its bin, and renames none there."""
    old, new = (client.get_experiment_by_name(mlflow_runs.experiment_name(name)) for name in (former, task))
    if old is None or (new is not None and (_is_active(new) or not _is_active(old))):
        return []
    done = [_move_aside(client, new)] if new else []
    if not _is_active(old):
        client.restore_experiment(old.experiment_id)
    client.rename_experiment(old.experiment_id, mlflow_runs.experiment_name(task))
    return [*done, f"MLflow's experiment {old.name} is {mlflow_runs.experiment_name(task)} now"]


def _move_aside(client: MlflowClient, deleted: Experiment) -> str:
    """Give an experiment in the bin another name; a kill in between leaves it among the others, with its runs."""
    name = f"{deleted.name}-{deleted.experiment_id}"
    client.restore_experiment(deleted.experiment_id)
    client.rename_experiment(deleted.experiment_id, name)
    client.delete_experiment(deleted.experiment_id)
    return f"the experiment {deleted.name} in MLflow's bin is {name} now"


def _is_active(experiment: Experiment | None) -> bool:
    return experiment is not None and experiment.lifecycle_stage == "active"


def _name_both_experiments(client: MlflowClient, task: str, former: str, say: Say) -> None:
    """As where a training was followed before this: MLflow cannot move runs, and what has versions is found by them."""
    names = [mlflow_runs.experiment_name(name) for name in (former, task)]
    if all(_is_active(client.get_experiment_by_name(name)) for name in names):
        say(f"MLflow has the experiments {' and '.join(names)}; the runs of the first stay there")


def _rename_decisions(client: MlflowClient, task: str, former: str) -> list[str]:
    """The run that holds MLflow's copy of a history is found by its key, which has the task's name."""
    experiment = client.get_experiment_by_name(registry_sync.EXPERIMENT)
    run = experiment and mlflow_runs.find_run(client, experiment.experiment_id, registry_sync.run_key(former))
    if not run:
        return []
    client.update_run(run.info.run_id, name=task)
    client.set_tag(run.info.run_id, "convoy.task", task)
    client.set_tag(run.info.run_id, mlflow_runs.RUN_KEY, registry_sync.run_key(task))
    return ["MLflow's copy of the history has the new name"]


def _unused_outputs(entries: tasks.Entries) -> list[str]:
    """What lies there of former names."""
    used = _used_paths(entries)
    outputs = [pattern.format(former) for former in tasks.FORMER_NAMES.values() for pattern in _FORMER_OUTPUTS]
    return [output for output in outputs if Path(output).exists() and Path(output) not in used]


def _used_paths(entries: tasks.Entries) -> set[Path]:
    """A data set may be called `text`, and a task `image-cnn`."""
    of_data = (paths.raw, paths.prepared)
    of_task = (paths.candidates, paths.bundle, paths.reports)
    return {
        *(path(data) for data in entries.data for path in of_data),
        *(path(task) for task in entries.tasks for path in of_task),
    }
