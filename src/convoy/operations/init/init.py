"""`python -m convoy init`: survey a source, propose its entries, and write them to params.yaml; or take a task out."""

import codecs
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from convoy.core import atomic, locks, params, paths, tasks
from convoy.core.params import ParamsInvalid
from convoy.core.process import Say
from convoy.core.tasks import Entries
from convoy.data.raw import explain, require_labels
from convoy.kinds.registry import KINDS
from convoy.operations.init import entries, leftovers, template
from convoy.operations.init.leftovers import Leftovers
from convoy.operations.init.proposal import propose
from convoy.operations.init.source import Stated, describe, detect
from convoy.operations.init.survey import Survey, take_survey
from convoy.sources.items import SourceParams, SourceRefused

WRITING = Path(".run/params.lock")  # held by whoever writes params.yaml
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
    name = wanted.name
    _require_usable(name, wanted.stated)
    text = params.read_text()
    old = tasks.parse(text)
    detected = detect(wanted.stated, _kept_columns(text, wanted))
    _tell(describe(wanted.stated, detected), say)
    _tell(_describe_former(wanted, detected.kind, old), say)
    survey = take_survey(detected)
    _tell(survey.describe(), say)
    _require_items(wanted.stated, survey)
    values = propose(name, detected, survey, entries.entry(text, "data", name))
    proposed = _put(text, template.fill(detected.kind, values), wanted, detected.kind, old)
    try:
        new = tasks.parse(proposed)
    except ParamsInvalid as error:
        raise ParamsInvalid(f"the proposal does not fit other entries: {error}; change or remove that one") from None
    minimum = params.load(proposed)["data"][name]["prepare"]["limits"]["min_per_label"]
    _tell(survey.warn_of_rare(f"data.{name}.prepare.limits.min_per_label", minimum), say)
    others = [task.name for task in new.tasks.values() if task.data == name and task.name != name]
    _tell((f"the task {other} learns from this data set too" for other in others), say)
    if text == proposed:
        say(f"{paths.PARAMS} says all this already; next: dvc repro")
    elif _finish(text, proposed, leftovers.find(old, new, _sources(text, proposed)), wanted.write, say):
        say(f"{paths.PARAMS} is written; next: dvc repro, then python -m convoy publish")


def remove(name: str, write: bool, say: Say) -> None:
    """Take a task out with its candidates, and its data set where no other task uses it; with `write` for good.

    Of a task that only deployed/ has the model is withdrawn. Raises InitRefused, TaskUnknown, ParamsInvalid and
    DecisionsBroken, with the remedy; then nothing is changed.
    """
    text = params.read_text()
    old = tasks.parse(text)
    if name not in old.tasks and name in tasks.known():
        _finish(text, text, Leftovers(frozenset(), (), (name,)), write, say)
        return
    task = old.task(name)
    if len(old.tasks) == 1:
        raise InitRefused(
            f"--remove is {name!r}, the only task of {paths.PARAMS}; with `--task NAME --from PATH --replace` another "
            "takes its place"
        )
    proposed = entries.take_out(text, "tasks", name)
    for candidate in old.of_task(name):
        proposed = entries.take_out(proposed, "candidates", candidate.name)
    if not any(other.data == task.data for other in old.tasks.values() if other != task):
        proposed = entries.take_out(proposed, "data", task.data)
    if _finish(text, proposed, leftovers.find(old, tasks.parse(proposed), _sources(text, proposed)), write, say):
        say(f"{paths.PARAMS} is written")


def require_alone(name: str, others: Mapping[str, object]) -> None:
    """Raise InitRefused where `--remove NAME` comes with other options than --write."""
    for option, value in others.items():
        if value is not None:
            raise InitRefused(
                f"--remove {name} and --{option} exclude each other: --remove takes a task out, --{option} is for one "
                "that is added; leave one of the two out"
            )


def _tell(lines: Iterator[str], say: Say) -> None:
    for line in lines:
        say(line)


def _require_usable(name: str, stated: Stated) -> None:
    """Raise InitRefused for a name, a kind, an encoding or labels that cannot be."""
    problem = tasks.problem_of_name(name, is_task=True)
    if len(name) > LONGEST:
        problem = f"it has {len(name)} characters, {LONGEST} are the most"
    elif not problem and yaml.safe_load(name) != name:
        problem = f"YAML reads it as {yaml.safe_load(name)}; choose another"
    if problem:
        raise InitRefused(f"--task is {name!r}: {problem}")
    if stated.kind not in (None, *KINDS):
        raise InitRefused(f"--kind is {stated.kind!r}, expected is one of {', '.join(KINDS)}")
    try:
        codecs.lookup(stated.encoding)
    except LookupError:
        raise InitRefused(
            f"--encoding is {stated.encoding!r}, which Python does not know; utf-8 is the usual one"
        ) from None
    if stated.labels is not None and len(stated.labels) < 2:
        raise InitRefused(f"--labels is {stated.labels[0]!r}, expected are two at least, with commas between")


def _kept_columns(text: str, wanted: Wanted) -> dict[str, str]:
    """The columns, by their role, that the entry of this name has in params.yaml, if it is of the same table."""
    try:
        fetch = SourceParams.model_validate(params.load(text)["data"][wanted.name]["fetch"])
    except (KeyError, ValueError):
        return {}
    path = wanted.stated.path.resolve()
    is_same = fetch.source == "table" and fetch.path.resolve() in (path, path.parent)
    return {key: getattr(fetch.table, key) for key in ("content", "label", "split")} if is_same else {}


def _describe_former(wanted: Wanted, kind: str, old: Entries) -> Iterator[str]:
    """What becomes of the task that has this name now. Raises InitRefused where it is of another kind."""
    former = old.tasks.get(wanted.name)
    if former is None:
        return
    if former.kind == kind:
        yield f"{paths.PARAMS} has a task {wanted.name}: the proposal takes the place of its entries"
    elif wanted.replace:
        yield f"the task {wanted.name} of kind {former.kind} goes; one of kind {kind} takes its name"
    else:
        raise InitRefused(
            f"--task is {wanted.name!r}, in {paths.PARAMS} a task of kind {former.kind}, and {wanted.stated.path} is "
            f"of kind {kind}; choose another name, take that task out first (--remove {wanted.name}), or take all "
            "out (--replace)"
        )


def _require_items(stated: Stated, survey: Survey) -> None:
    """Raise SourceRefused where there are not two labels, or nothing of a sample can be used."""
    try:
        require_labels(survey.counts, stated.labels)
        if not len(survey.sample):
            raise SourceRefused("nothing of a sample can be used")
    except SourceRefused as refused:
        raise SourceRefused(f"{stated.path}: {refused}; {explain(survey.rejections)}") from None


def _put(text: str, filled: dict[str, dict[str, str]], wanted: Wanted, kind: str, old: Entries) -> str:
    """The text with the filled entries in it; with `replace` without all others.

    Candidates of the task stay that are not proposed, unless they are of another kind. Raises InitRefused where a
    candidate of another task has a name that is needed.
    """
    for section, blocks in filled.items():
        for name, block in blocks.items():
            taken = old.candidates.get(name) if section == "candidates" and not wanted.replace else None
            if taken and taken.task != wanted.name:
                raise InitRefused(
                    f"--task is {wanted.name!r}, which needs the name candidates.{name}, and that is a candidate of "
                    f"the task {taken.task}; choose another name"
                )
            text = entries.put(text, section, name, block)
    if wanted.replace:
        own = {candidate.name for candidate in old.of_task(wanted.name) if candidate.kind == kind}
        for section, blocks in filled.items():
            stay = blocks.keys() | (own if section == "candidates" else set())
            for name in entries.names(text, section):
                text = text if name in stay else entries.take_out(text, section, name)
    return text


def _finish(text: str, proposed: str, left: Leftovers, write: bool, say: Say) -> bool:
    """Tell the change, and with `write` make it; returns whether it is made.

    params.yaml comes last, so that after a kill the same command does the rest. Raises InitRefused where it is no
    longer `text`, DecisionsBroken, and ParamsInvalid where a DVC is running; then nothing is changed.
    """
    before, after = (lines.splitlines(keepends=True) for lines in (text, proposed))
    names = str(paths.PARAMS), f"{paths.PARAMS}, proposed"
    if patch := "".join(difflib.unified_diff(before, after, *names, n=0)):
        say(patch)
    if not write:
        _tell(leftovers.describe(left, "would remove"), say)
        say("nothing is changed; add --write to do it")
        return False
    WRITING.parent.mkdir(exist_ok=True)
    wait = "waiting for another init to end"
    with locks.hold_when_free(WRITING, lambda: say(wait)), leftovers.hold(left, say):
        if params.read_text() != text:
            raise InitRefused(f"{paths.PARAMS} was changed meanwhile; say this again")
        leftovers.remove(left, say)
        if patch:
            atomic.write_bytes(paths.PARAMS.resolve(), proposed.encode("utf-8"))  # a link stays one
    return True


def _sources(*texts: str) -> list[Path]:
    """What the data sets in texts of params.yaml are read from."""
    found = [data.get("fetch") for text in texts for data in params.load(text)["data"].values()]
    return [Path(str(fetch["path"])) for fetch in found if isinstance(fetch, dict) and "path" in fetch]
