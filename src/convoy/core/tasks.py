"""The data sets, tasks and candidates of params.yaml, and the tasks that deployed/ knows."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from convoy.core import params, paths
from convoy.core.params import ParamsInvalid

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")  # 63 characters, as a label of a host's name
# Names of folders of reports/, of routes and of experiments in MLflow that are no task's.
RESERVED = ("baselines", "bench", "compare", "data", "decisions", "models", "none", "pictures")
# The packaged tasks had other names until revision db35d33; versions, decisions and bundles of then keep them.
FORMER_NAMES = {"fashion": "image", "reviews": "text", "reviews-stream": "text-stream"}
PRESENT_NAMES = {former: task for task, former in FORMER_NAMES.items()}
HISTORY, CURRENT = "decisions.jsonl", "current"  # in deployed/<task>


Entry = TypeVar("Entry")


class TaskUnknown(LookupError):
    """A name that no task, data set or candidate has; says which there are."""


@dataclass(frozen=True)
class DataSet:
    """Raw items of one kind, prepared and divided: an entry of `data`."""

    name: str
    kind: str

    @property
    def fetch(self) -> str:
        """The stage that reads its source."""
        return f"fetch@{self.name}"

    @property
    def prepare(self) -> str:
        """The stage that makes its splits."""
        return f"prepare@{self.name}"

    @property
    def baselines(self) -> str:
        """The stage that measures simple models on it."""
        return f"baselines@{self.name}"


@dataclass(frozen=True)
class Task:
    """What is learnt from a data set, published and deployed under one name: an entry of `tasks`."""

    name: str
    data: str
    kind: str

    @property
    def choose(self) -> str:
        """The stage that chooses its winner."""
        return f"choose@{self.name}"

    @property
    def export(self) -> str:
        """The stage that makes its bundle."""
        return f"export@{self.name}"

    @property
    def evaluate(self) -> str:
        """The stage that evaluates its bundle."""
        return f"evaluate@{self.name}"


@dataclass(frozen=True)
class Candidate:
    """One network with its numbers, trained for a task: an entry of `candidates`."""

    name: str
    task: str
    data: str
    kind: str
    network: str

    @property
    def train(self) -> str:
        """The stage that trains it."""
        return train_stage(self.name)

    @property
    def key(self) -> str:
        """Its entry in params.yaml."""
        return f"candidates.{self.name}"


@dataclass(frozen=True)
class Entries:
    """All entries by their names, in the order of params.yaml."""

    data: dict[str, DataSet]
    tasks: dict[str, Task]
    candidates: dict[str, Candidate]

    @property
    def stages(self) -> set[str]:
        """The names of all their stages in dvc.yaml."""
        return {
            *(stage for data in self.data.values() for stage in (data.fetch, data.prepare, data.baselines)),
            *(stage for task in self.tasks.values() for stage in (task.choose, task.export, task.evaluate)),
            *(candidate.train for candidate in self.candidates.values()),
        }

    def data_set(self, name: str) -> DataSet:
        """The data set of this name. Raises TaskUnknown."""
        return _find(name, self.data, "data set")

    def task(self, name: str) -> Task:
        """The task of this name. Raises TaskUnknown."""
        return _find(name, self.tasks, "task")

    def candidate(self, name: str) -> Candidate:
        """The candidate of this name. Raises TaskUnknown."""
        return _find(name, self.candidates, "candidate")

    def of_task(self, name: str) -> list[Candidate]:
        """The candidates of a task."""
        return [candidate for candidate in self.candidates.values() if candidate.task == name]


def read(path: Path = paths.PARAMS) -> Entries:
    """Read the entries of params.yaml. Raises ParamsInvalid, which names the entry, the value and what was expected."""
    return parse(params.read_text(path), path)


def parse(text: str, path: Path = paths.PARAMS) -> Entries:
    """The entries in the text of a params.yaml. Raises ParamsInvalid."""
    content = params.load(text, path)
    sections = {name: _section(content, name, path) for name in ("data", "tasks", "candidates")}
    data = {name: DataSet(name, _word(entry, "kind", f"data.{name}", path)) for name, entry in sections["data"].items()}
    tasks = {name: _task(name, entry, data, path) for name, entry in sections["tasks"].items()}
    candidates = {name: _candidate(name, entry, tasks, path) for name, entry in sections["candidates"].items()}
    for task in tasks:
        if not any(candidate.task == task for candidate in candidates.values()):
            raise ParamsInvalid(f"{path}: no entry of candidates has task: {task}; add one, or remove tasks.{task}")
    return Entries(data, tasks, candidates)


def problem_of_name(name: Any, is_task: bool) -> str:
    """Why an entry cannot have this name; "" where it can."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return "a name has small letters, digits and hyphens and begins with a letter, 63 characters at most"
    if name in RESERVED:
        return f"{', '.join(RESERVED)} are names of Convoy's own; choose another"
    if is_task and name in PRESENT_NAMES:
        return f"the packaged task {PRESENT_NAMES[name]} had this name before; choose another"
    return ""


def train_stage(candidate: str) -> str:
    """The stage that trains the candidate of a name."""
    return f"train@{candidate}"


def deployed(root: Path = paths.DEPLOYED) -> list[str]:
    """The tasks with a deployed model, also where its link `current` leads nowhere."""
    return _tasks_with(root, CURRENT)


def with_history(root: Path = paths.DEPLOYED) -> list[str]:
    """The tasks on which something was decided, also those that params.yaml no longer has."""
    return _tasks_with(root, HISTORY)


def known() -> list[str]:
    """The tasks of params.yaml in its order, then those that only deployed/ has; without params.yaml the latter."""
    built = list(read().tasks) if paths.PARAMS.exists() else []
    return list(dict.fromkeys([*built, *deployed(), *with_history()]))


def require_known(name: str) -> str:
    """The name of a task. Raises TaskUnknown where neither params.yaml nor deployed/ has it."""
    if name not in known():
        present = present_name(name)
        hint = f"; there is {_listed(known())}" if present == name else f"; {name!r} is called {present!r} now"
        raise TaskUnknown(f"there is no task {name!r}{hint}")
    return name


def is_same(task: str, other: str) -> bool:
    """Whether two names are of one task: the packaged tasks had other names before."""
    return task == other or FORMER_NAMES.get(task) == other


def is_name(name: str) -> bool:
    """Whether a task can have this name, which is a folder's too: `..`, say, would lead out of deployed/."""
    return NAME.fullmatch(name) is not None and name not in RESERVED


def present_name(name: str) -> str:
    """The name that a task has now."""
    present = PRESENT_NAMES.get(name, name)
    return present if present in known() else name


def names_of(task: str) -> tuple[str, ...]:
    """The names that a task has had, the present one first."""
    return (task, *([FORMER_NAMES[task]] if task in FORMER_NAMES else []))


def _find(name: str, entries: dict[str, Entry], word: str) -> Entry:
    if name not in entries:
        raise TaskUnknown(f"there is no {word} {name!r} in {paths.PARAMS}; there is {_listed(entries)}")
    return entries[name]


def _tasks_with(root: Path, name: str) -> list[str]:
    """The folders of tasks in which a name exists; none where `root` is not there."""
    folders = root.iterdir() if root.is_dir() else ()
    return sorted(folder.name for folder in folders if NAME.fullmatch(folder.name) and os.path.lexists(folder / name))


def _section(content: Any, name: str, path: Path) -> dict[str, dict[str, Any]]:
    section = content.get(name) if isinstance(content, dict) else None
    if not isinstance(section, dict) or not section:
        raise ParamsInvalid(f"{path}: the section {name} is missing, or has no entries")
    for key, entry in section.items():
        if problem := problem_of_name(key, is_task=name == "tasks"):
            raise ParamsInvalid(f"{path}: {name}.{key}: {problem}")
        if not isinstance(entry, dict):
            raise ParamsInvalid(f"{path}: {name}.{key} is {entry!r}, expected is a section")
    return section


def _word(entry: dict[str, Any], key: str, name: str, path: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise ParamsInvalid(f"{path}: {name}.{key} is {value!r}, expected is a name")
    return value


def _task(name: str, entry: dict[str, Any], data: dict[str, DataSet], path: Path) -> Task:
    source, kind = (_word(entry, key, f"tasks.{name}", path) for key in ("data", "kind"))
    if source not in data:
        raise ParamsInvalid(f"{path}: tasks.{name}.data is {source!r}, data has {_listed(data)}")
    if kind != data[source].kind:
        raise ParamsInvalid(f"{path}: tasks.{name}.kind is {kind!r}, data.{source}.kind is {data[source].kind!r}")
    return Task(name, source, kind)


def _candidate(name: str, entry: dict[str, Any], tasks: dict[str, Task], path: Path) -> Candidate:
    key = f"candidates.{name}"
    of_task, data, kind = (_word(entry, word, key, path) for word in ("task", "data", "kind"))
    if of_task not in tasks:
        raise ParamsInvalid(f"{path}: {key}.task is {of_task!r}, tasks has {_listed(tasks)}")
    task = tasks[of_task]
    for word, value, expected in (("data", data, task.data), ("kind", kind, task.kind)):
        if value != expected:
            raise ParamsInvalid(f"{path}: {key}.{word} is {value!r}, tasks.{of_task}.{word} is {expected!r}")
    network = entry.get("network")
    if not isinstance(network, dict):
        raise ParamsInvalid(f"{path}: {key}.network is {network!r}, expected is a section with a name")
    return Candidate(name, of_task, data, kind, _word(network, "name", f"{key}.network", path))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
