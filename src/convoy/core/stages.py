"""The names that dvc.yaml gives the stages of a task: whatever names a stage takes its name from here."""

import re
from typing import TypeGuard

from convoy.core.paths import DATA_KINDS, TASKS, Architecture, DataKind, Task, architectures, kind_of

BASELINES = "baselines"  # one stage for the data of all tasks

_SUFFIX: dict[DataKind, str] = {"image": "images", "text": "text"}
_OF_DATA = re.compile(r"(?:fetch_|prepare_|[a-z]+@)(image|text)")
_OF_STREAM = re.compile(r"[a-z]+_stream")


def fetch(task: Task) -> str:
    """The stage that brings a task's raw data, and its section of params.yaml."""
    return f"fetch_{_SUFFIX[kind_of(task)]}"


def prepare(task: Task) -> str:
    """The stage that makes a task's splits, and its section of params.yaml."""
    return f"prepare_{_SUFFIX[kind_of(task)]}"


def train(task: Task, architecture: Architecture) -> str:
    """The stage that trains one candidate."""
    return _of(task, "train", architecture)


def is_chosen(task: Task) -> TypeGuard[DataKind]:
    """Whether a task has several candidates, of which a stage chooses one."""
    return len(architectures(task)) > 1


def choose(task: DataKind) -> str:
    """The stage that names a task's winner; only where `is_chosen` says so there is one."""
    return _of(task, "choose")


def export(task: Task) -> str:
    """The stage that makes a task's bundle."""
    return _of(task, "export")


def evaluate(task: Task) -> str:
    """The last stage of a task, which judges its bundle."""
    return _of(task, "evaluate")


def to_bundle(task: Task) -> list[str]:
    """The stages that train a task's candidates and make its bundle of one, in their order."""
    return [*_trained(task), *_bundled(task)]


def up_to_bundle(task: Task) -> list[str]:
    """The stages that a bundle comes from, in their order."""
    return [fetch(task), prepare(task), *to_bundle(task)]


def of_reports(task: Task) -> list[str]:
    """All stages that a task's bundle and its reports come from, in their order."""
    return [fetch(task), prepare(task), *_trained(task), BASELINES, *_bundled(task), evaluate(task)]


def behind(task: Task) -> list[str]:
    """The same, after what makes the data of other tasks, which the stage of the baselines reads with them."""
    others = [name for other in DATA_KINDS if other != kind_of(task) for name in (fetch(other), prepare(other))]
    return [*others, *of_reports(task)]


def task_of(stage: str) -> Task | None:
    """The task that a stage belongs to, also one of an older dvc.yaml; None for a stage of all tasks."""
    if _OF_STREAM.fullmatch(stage):
        return "text-stream"
    named = _OF_DATA.match(stage)
    return next((task for task in TASKS if named and task == named[1]), None)


def module_of(stage: str) -> str:
    """The module that a stage runs."""
    return f"pipelines.{stage.partition('@')[0]}"


def training_section(task: Task, architecture: Architecture) -> tuple[str, ...]:
    """The keys of a candidate's section in params.yaml."""
    return ("train_stream",) if task == "text-stream" else ("train", task, architecture)


def _of(task: Task, entry: str, *key: str) -> str:
    """One of a matrix over data and architectures, or the one of `text-stream`, which is in no matrix."""
    return f"{entry}_stream" if task == "text-stream" else f"{entry}@{'-'.join((task, *key))}"


def _trained(task: Task) -> list[str]:
    return [train(task, architecture) for architecture in architectures(task)]


def _bundled(task: Task) -> list[str]:
    return [*([choose(task)] if is_chosen(task) else []), export(task)]
