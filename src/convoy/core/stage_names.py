"""The names of a task's stages in dvc.yaml: all code that names a stage takes the name from here."""

import re
from typing import TypeGuard

from convoy.core.paths import DATA_KINDS, TASKS, Architecture, DataKind, Task, architectures, kind_of

BASELINES = "baselines"  # one stage for the data of all tasks

_SUFFIX: dict[DataKind, str] = {"image": "images", "text": "text"}
_DATA_STAGE = re.compile(r"(?:fetch_|prepare_|[a-z]+@)(image|text)")
_OF_DATA = re.compile(r"(fetch|prepare)_(?:images|text)")
_STREAM_STAGE = re.compile(r"[a-z]+_stream")


def fetch(task: Task) -> str:
    """The stage that brings a task's raw data, and its section of params.yaml."""
    return f"fetch_{_SUFFIX[kind_of(task)]}"


def prepare(task: Task) -> str:
    """The stage that makes a task's splits, and its section of params.yaml."""
    return f"prepare_{_SUFFIX[kind_of(task)]}"


def train(task: Task, architecture: Architecture) -> str:
    """The stage that trains one candidate."""
    return _stage_name(task, "train", architecture)


def is_chosen(task: Task) -> TypeGuard[DataKind]:
    """Whether a task has several candidates, of which a stage chooses one."""
    return len(architectures(task)) > 1


def choose(task: DataKind) -> str:
    """The stage that names a task's winner; it exists only where `is_chosen`."""
    return _stage_name(task, "choose")


def export(task: Task) -> str:
    """The stage that makes a task's bundle."""
    return _stage_name(task, "export")


def evaluate(task: Task) -> str:
    """The last stage of a task, which evaluates its bundle."""
    return _stage_name(task, "evaluate")


def train_to_bundle(task: Task) -> list[str]:
    """The stages that train a task's candidates and make a bundle of one of them, in their order."""
    return [*_train_stages(task), *_choose_and_export(task)]


def raw_to_bundle(task: Task) -> list[str]:
    """The stages that a bundle comes from, in their order."""
    return [fetch(task), prepare(task), *train_to_bundle(task)]


def raw_to_reports(task: Task) -> list[str]:
    """All stages that a task's bundle and its reports come from, in their order."""
    return [fetch(task), prepare(task), *_train_stages(task), BASELINES, *_choose_and_export(task), evaluate(task)]


def all_before_reports(task: Task) -> list[str]:
    """The same, after the stages that make the data of other tasks: the stage of the baselines reads all data."""
    other_data = [name for kind in DATA_KINDS if kind != kind_of(task) for name in (fetch(kind), prepare(kind))]
    return [*other_data, *raw_to_reports(task)]


def task_of(stage: str) -> Task | None:
    """The task that a stage belongs to, also one of an older dvc.yaml; None for a stage of all tasks."""
    if _STREAM_STAGE.fullmatch(stage):
        return "text-stream"
    match = _DATA_STAGE.match(stage)
    return next((task for task in TASKS if match and task == match[1]), None)


def module_of(stage: str) -> str:
    """The module that a stage runs."""
    of_data = _OF_DATA.fullmatch(stage)
    return f"pipelines.{of_data[1] if of_data else stage.partition('@')[0]}"


def of_module(module: str, *arguments: str) -> str:
    """The stage that a module runs with these arguments."""
    if module in ("fetch", "prepare"):
        return f"{module}_{_SUFFIX.get(arguments[0], arguments[0])}"  # type: ignore[call-overload]
    return f"{module}@{'-'.join(arguments)}" if arguments else module


def training_section(task: Task, architecture: Architecture) -> tuple[str, ...]:
    """The keys of a candidate's section in params.yaml."""
    return ("train_stream",) if task == "text-stream" else ("train", task, architecture)


def _stage_name(task: Task, entry: str, *key: str) -> str:
    """A stage's name in the matrix over data and architectures; `text-stream` has one stage, outside the matrix."""
    return f"{entry}_stream" if task == "text-stream" else f"{entry}@{'-'.join((task, *key))}"


def _train_stages(task: Task) -> list[str]:
    return [train(task, architecture) for architecture in architectures(task)]


def _choose_and_export(task: Task) -> list[str]:
    return [*([choose(task)] if is_chosen(task) else []), export(task)]
