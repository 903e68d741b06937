"""`python -m convoy init`: survey a source, propose its entries, and write them to params.yaml; or take a task out."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import create_model

from convoy.bundles.bundle import Limits
from convoy.core import atomic, locks, params, paths, tasks
from convoy.core.params import ParamsInvalid, Section
from convoy.core.process import Say
from convoy.core.tasks import Entries
from convoy.data.findings import PreflightLimits
from convoy.data.raw import explain, require_labels
from convoy.data.splits import DivisionParams
from convoy.kinds.registry import KINDS, module
from convoy.operations.init import entries, leftovers, template
from convoy.operations.init.columns import Columns
from convoy.operations.init.proposal import propose
from convoy.operations.init.source import READ, Detected, Stated, detect
from convoy.operations.init.survey import Survey, take_survey
from convoy.sources.items import SourceParams, SourceRefused

WRITING = Path(".run/params.lock")  # held by whoever writes params.yaml
WITH_WRITE = "with --write it is"
LONGEST = 50  # characters of a new task's name: those of its candidates are longer, and tasks.NAME has a limit


class InitRefused(ValueError):
    """Options that cannot be meant; the message names the option, its value and the remedy."""


@dataclass(frozen=True)
class Wanted:
    """The name of the task and its data set, what is said about its source, and what happens with the proposal."""

    name: str
    stated: Stated
    write: bool = False
    replace: bool = False  # all other tasks go


def init(wanted: Wanted, say: Say) -> None:
    """Propose the entries of a data set, its task and its candidates; with `write` put them into params.yaml.

    Raises InitRefused, SourceRefused, ParamsInvalid and DecisionsBroken, with the remedy; then nothing is changed.
    """
    _require_usable(wanted)
    text = entries.read_text()
    old = tasks.parse(text)
    detected = detect(wanted.stated, _kept_columns(text, wanted))
    for line in _describe(wanted, detected):
        say(line)
    for line in _describe_former(wanted, detected.kind, old):
        say(line)
    survey = take_survey(detected)
    for line in survey.describe():
        say(line)
    _require_items(wanted, survey)
    name, replaced = wanted.name, entries.entry(text, "data", wanted.name)
    filled = template.fill(detected.kind, propose(name, detected, survey, replaced))
    proposed = _put(text, filled, wanted, detected.kind, old)
    new = _parse_all(proposed, wanted)
    minimum = _content(proposed)["data"][name]["prepare"]["limits"]["min_per_label"]
    for line in survey.warn_of_rare(f"data.{name}.prepare.limits.min_per_label", minimum):
        say(line)
    for task in new.tasks.values():
        if task.data == name and task.name != name:
            say(f"the task {task.name} learns from this data set too")
    if text == proposed:
        say(f"{paths.PARAMS} says all this already; next: dvc repro")
    elif _finish(text, proposed, leftovers.find(old, new, _sources(text, proposed)), wanted.write, say):
        say(f"{paths.PARAMS} is written; next: dvc repro, then python -m convoy publish")


def remove(name: str, write: bool, say: Say) -> None:
    """Take a task out with its candidates, and its data set where no other task uses it; with `write` for good.

    Raises InitRefused, TaskUnknown, ParamsInvalid and DecisionsBroken, with the remedy; then nothing is changed.
    """
    text = entries.read_text()
    old = tasks.parse(text)
    if name not in old.tasks and name in tasks.known():
        _withdraw(name, write, say)
        return
    task = old.task(name)
    if len(old.tasks) == 1:
        raise InitRefused(
            f"--remove is {name!r}, the only task of {paths.PARAMS}; with `--task NAME --from PATH --replace` another "
            "takes its place"
        )
    proposed = entries.take_out(text, "tasks", name)
    for candidate in old.candidates.values():
        if candidate.task == name:
            proposed = entries.take_out(proposed, "candidates", candidate.name)
    if not any(other.data == task.data for other in old.tasks.values() if other.name != name):
        proposed = entries.take_out(proposed, "data", task.data)
    left = leftovers.find(old, tasks.parse(proposed), _sources(text, proposed))
    if _finish(text, proposed, left, write, say):
        say(f"{paths.PARAMS} is written")


def _withdraw(name: str, write: bool, say: Say) -> None:
    """Withdraw the model of a task that params.yaml has no longer."""
    left = leftovers.Leftovers(frozenset(), (), (name,))
    if write:
        with leftovers.hold(left, say):
            leftovers.remove(left, say)
        return
    for line in leftovers.describe(left, "would remove"):
        say(line)
    say(f"nothing is changed; {WITH_WRITE}")


def require_alone(name: str, others: Mapping[str, object]) -> None:
    """Raise InitRefused where `--remove NAME` comes with other options than --write."""
    for option, value in others.items():
        if value is not None:
            raise InitRefused(
                f"--remove {name} and --{option} exclude each other: --remove takes a task out, --{option} is for one "
                "that is added; leave one of the two out"
            )


def _require_usable(wanted: Wanted) -> None:
    """Raise InitRefused for a name, a kind or labels that cannot be."""
    name, stated = wanted.name, wanted.stated
    if len(name) > LONGEST:
        raise InitRefused(f"--task is {name!r}, which has {len(name)} characters, expected are {LONGEST} at most")
    if not tasks.NAME.fullmatch(name):
        raise InitRefused(
            f"--task is {name!r}, expected are small letters, digits and hyphens, a letter first, as film-reviews"
        )
    if present := tasks.PRESENT_NAMES.get(name):
        raise InitRefused(
            f"--task is {name!r}, the name of the packaged task {present} until revision db35d33; choose another"
        )
    if name in tasks.RESERVED:
        reserved = ", ".join(tasks.RESERVED)
        raise InitRefused(f"--task is {name!r}, which Convoy needs itself, as {reserved}; choose another")
    if yaml.safe_load(name) != name:
        raise InitRefused(f"--task is {name!r}, which YAML reads as {yaml.safe_load(name)}; choose another")
    if stated.kind not in (None, *KINDS):
        raise InitRefused(f"--kind is {stated.kind!r}, expected is one of {', '.join(KINDS)}")
    if stated.labels is not None and len(stated.labels) < 2:
        raise InitRefused(f"--labels is {stated.labels[0]!r}, expected are two at least, with commas between")


def _kept_columns(text: str, wanted: Wanted) -> Columns:
    """The columns that the entry of this name has in params.yaml, unless they are of another table."""
    data = _content(text)["data"].get(wanted.name)
    fetch = data.get("fetch") if isinstance(data, dict) else None
    table = fetch.get("table") if isinstance(fetch, dict) else None
    if not isinstance(fetch, dict) or not isinstance(table, dict):
        return Columns()
    path = wanted.stated.path.resolve()
    source_path = (paths.PARAMS.parent / str(fetch.get("path"))).resolve()
    if fetch.get("source") != "table" or source_path not in (path, path.parent):
        return Columns()
    names = {key: table.get(key) for key in ("content", "label", "split")}
    return Columns(**{key: str(name) for key, name in names.items() if isinstance(name, str)})


def _describe(wanted: Wanted, detected: Detected) -> list[str]:
    table = detected.params.table
    found = "as --kind says" if wanted.stated.kind else "as found; --kind states another"
    lines = [f"{wanted.stated.path}: {READ[detected.source]}, of kind {detected.kind} ({found})"]
    if detected.source != "table":
        return lines
    reasons = {key: reason or f"as {paths.PARAMS} says" for key, reason in detected.reasons.items()}
    return [
        *lines,
        f"column {table.content!r} is the {detected.kind} ({reasons['content']}), column {table.label!r} the label "
        f"({reasons['label']}); --content and --label name others",
        *detected.doubts,
    ]


def _require_items(wanted: Wanted, survey: Survey) -> None:
    """Raise SourceRefused where there are not two labels, or nothing of a sample can be used."""
    path = wanted.stated.path
    try:
        require_labels(survey.counts, wanted.stated.labels)
    except SourceRefused as refused:
        raise SourceRefused(f"{path}: {refused}; {explain(survey.rejections)}") from None
    if not len(survey.sample):
        raise SourceRefused(f"{path}: nothing of a sample can be used; {explain(survey.rejections)}")


def _put(text: str, filled: dict[str, dict[str, str]], wanted: Wanted, kind: str, old: Entries) -> str:
    """The text with the filled entries in it; with `replace` without all others.

    Candidates of the task stay that are not proposed, unless they are of another kind. Raises InitRefused where a
    candidate of another task has a name that is needed.
    """
    for section, blocks in filled.items():
        for name, block in blocks.items():
            owner = old.candidates[name].task if section == "candidates" and name in old.candidates else wanted.name
            if owner != wanted.name and not wanted.replace:
                raise InitRefused(
                    f"--task is {wanted.name!r}, which needs the name candidates.{name}, and that is a candidate of "
                    f"the task {owner}; choose another name"
                )
            text = entries.put(text, section, name, block)
    for candidate in old.candidates.values():
        is_other = candidate.task != wanted.name
        if candidate.name not in filled["candidates"] and (wanted.replace if is_other else candidate.kind != kind):
            text = entries.take_out(text, "candidates", candidate.name)
    if wanted.replace:
        for section in ("tasks", "data"):
            for name in set(entries.names(text, section)) - {wanted.name}:
                text = entries.take_out(text, section, name)
    return text


def _parse_all(text: str, wanted: Wanted) -> Entries:
    """The entries of a text, the new ones checked as far as no stage needs torch for it. Raises ParamsInvalid."""
    try:
        parsed = tasks.parse(text)
    except ParamsInvalid as error:
        raise ParamsInvalid(f"the proposal does not fit other entries: {error}; change or remove that one") from None
    name, content = wanted.name, _content(text)
    data, task, kind = content["data"][name], content["tasks"][name], parsed.data[name].kind
    params.validate(SourceParams, data["fetch"], f"data.{name}.fetch")
    params.validate(_preparation_model(kind), data["prepare"], f"data.{name}.prepare")
    params.validate(Limits, task["limits"], f"tasks.{name}.limits")
    if task["explanation"] is not None:
        params.validate(module(kind, "explanation").Params, task["explanation"], f"tasks.{name}.explanation")
    return parsed


def _preparation_model(kind: str) -> type[Section]:
    of_kind = module(kind, "preparing.preparation").Params
    return create_model("Params", __base__=(DivisionParams, of_kind), limits=(PreflightLimits, ...))


def _describe_former(wanted: Wanted, kind: str, old: Entries) -> Iterator[str]:
    """What becomes of the task that has this name now. Raises InitRefused where it is of another kind."""
    former = old.tasks.get(wanted.name)
    if former is None:
        return
    if former.kind == kind:
        yield f"{paths.PARAMS} has a task {wanted.name}: the proposal takes the place of its entries"
        return
    if not wanted.replace:
        raise InitRefused(
            f"--task is {wanted.name!r}, in {paths.PARAMS} a task of kind {former.kind}, and {wanted.stated.path} is "
            f"of kind {kind}; choose another name, take that task out first (--remove {wanted.name}), or take all "
            "out (--replace)"
        )
    yield f"the task {wanted.name} of kind {former.kind} goes; one of kind {kind} takes its name"


def _finish(text: str, proposed: str, left: leftovers.Leftovers, write: bool, say: Say) -> bool:
    """Tell the change, and with `write` make it; returns whether it is made.

    params.yaml comes last, so that after a kill the same command does the rest.

    Raises InitRefused where params.yaml is no longer `text`, DecisionsBroken, and ParamsInvalid where a DVC is running;
    then nothing is changed.
    """
    say(_format_patch(text, proposed))
    if write:
        WRITING.parent.mkdir(exist_ok=True)
        wait = "waiting for another init to end"
        with locks.hold_when_free(WRITING, lambda: say(wait)), leftovers.hold(left, say):
            if entries.read_text() != text:
                raise InitRefused(f"{paths.PARAMS} was changed meanwhile; say this again")
            leftovers.remove(left, say)
            atomic.write_bytes(paths.PARAMS.resolve(), proposed.encode("utf-8"))  # a link stays one
        return True
    for line in leftovers.describe(left, "would remove"):
        say(line)
    say(f"nothing is written; {WITH_WRITE}")
    return False


def _format_patch(old: str, new: str) -> str:
    before, after = (text.splitlines(keepends=True) for text in (old, new))
    names = str(paths.PARAMS), f"{paths.PARAMS}, proposed"
    return "".join(difflib.unified_diff(before, after, *names, n=0))


def _content(text: str) -> Any:
    return params.load(text)


def _sources(*texts: str) -> list[Path]:
    """What the data sets in texts of params.yaml are read from."""
    found = [data.get("fetch") for text in texts for data in _content(text)["data"].values()]
    return [Path(str(fetch["path"])) for fetch in found if isinstance(fetch, dict) and "path" in fetch]
