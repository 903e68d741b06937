"""`python -m convoy init`: survey a source, propose params, and write them to params.yaml beside its comments."""

import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml as pyyaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from convoy.core import atomic, paths, stage_names
from convoy.core.params import ParamsInvalid, read_section
from convoy.core.paths import Task
from convoy.core.process import Say
from convoy.data.findings import PreflightLimits
from convoy.data.raw import explain, require_labels
from convoy.operations.init.columns import Columns
from convoy.operations.init.proposal import Change, propose
from convoy.operations.init.survey import READ, Detected, detect, take_survey
from convoy.sources.items import SourceRefused

COMMENT_COLUMN = 28
GOES_ON = 20  # spaces before a line of a remark that began on the line of a value


def init(
    task: Task,
    path: Path,
    encoding: str,
    labels: tuple[str, ...] | None,
    options: Columns,
    write: bool,
    say: Say,
) -> None:
    """Propose params for the source at `path`; with `write` change params.yaml.

    Raises SourceRefused, ParamsInvalid where the data or params.yaml cannot be used.
    """
    kept = _stored_columns(paths.PARAMS, stage_names.fetch(task), path)
    detected = detect(task, path, encoding, labels, options, kept)
    say(f"{path}: {READ[detected.source]}")
    if detected.source == "table":
        for line in _describe_columns(task, detected):
            say(line)
    survey = take_survey(detected, task)
    for line in survey.describe():
        say(line)
    try:
        require_labels(survey.counts, labels)
    except SourceRefused as refused:
        raise SourceRefused(f"{path}: {refused}; {explain(survey.rejections)}") from None
    proposed = changed(paths.PARAMS, propose(task, detected, survey))
    limits = (stage_names.prepare(task), "limits")
    minimum = read_section(PreflightLimits, *limits).min_per_label
    for line in survey.warn_of_rare(f"{'.'.join(limits)}.min_per_label", minimum):
        say(line)
    patch = _format_difference(paths.PARAMS, proposed)
    if not patch:
        say(f"{paths.PARAMS} says all this already; next: dvc repro")
        return
    say(patch)
    if write:
        atomic.write_bytes(paths.PARAMS, proposed.encode("utf-8"))
        say(f"{paths.PARAMS} is written; next: dvc repro, then python -m convoy publish")
    else:
        say(f"nothing is written; with --write this goes into {paths.PARAMS}")


def _stored_columns(path: Path, section: str, table: Path) -> Columns:
    """The columns that a section fetch_* names, unless they are of another table.

    Raises ParamsInvalid where there is no such file.
    """
    content = _load_yaml(_new_yaml(), path)
    fetch = content.get(section) if isinstance(content, dict) else None
    table_params = fetch.get("table") if isinstance(fetch, dict) else None
    if not isinstance(fetch, dict) or not isinstance(table_params, dict):
        return Columns()
    source_path = Path(str(fetch.get("path"))).resolve()
    if fetch.get("source") == "table" and source_path not in (table.resolve(), table.resolve().parent):
        return Columns()
    names = {key: table_params.get(key) for key in ("content", "label", "split")}
    return Columns(**{key: str(name) for key, name in names.items() if isinstance(name, str)})


def _describe_columns(task: Task, detected: Detected) -> list[str]:
    table = detected.params.table
    reasons = {key: reason or f"as {paths.PARAMS} says" for key, reason in detected.reasons.items()}
    return [
        f"column {table.content!r} is the {task} ({reasons['content']}), column {table.label!r} the label "
        f"({reasons['label']}); --content and --label name others",
        *detected.doubts,
    ]


def _format_difference(path: Path, text: str) -> str:
    """The change to `text`, as a patch."""
    lines = (path.read_text(encoding="utf-8").splitlines(keepends=True), text.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*lines, fromfile=str(path), tofile=f"{path}, proposed", n=0))


def changed(path: Path, changes: Sequence[Change]) -> str:
    """The file's text with the changes in it. Raises ParamsInvalid where it lacks a key."""
    yaml = _new_yaml()
    content = _load_yaml(yaml, path)
    for change in changes:
        section: Any = content
        for key in change.keys[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, CommentedMap) or change.keys[-1] not in section:
            raise ParamsInvalid(f"{path}: {'.'.join(change.keys)} is missing")
        _replace_value(section, change.keys[-1], change.value, change.reason)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _new_yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # or long lines would be broken
    yaml.representer.add_representer(type(None), _represent_null)
    yaml.representer.add_representer(float, _represent_float)
    return yaml


def _load_yaml(yaml: YAML, path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsInvalid(f"{path} is missing; run this in the folder of Convoy that has it") from None
    except YAMLError as error:
        raise ParamsInvalid(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _replace_value(section: CommentedMap, key: str, value: Any, reason: str) -> None:
    """Replace a value and its reason, also where only the reason differs.

    Lines below that ruamel keeps with the remark stay.
    """
    remark = section.ca.items.get(key)
    _, _, below = remark[2].value.partition("\n") if remark and remark[2] else ("", "", "")
    if section[key] != value:
        section[key] = _yaml_value(value)
    section.yaml_add_eol_comment(f"# {reason}", key, column=COMMENT_COLUMN)
    kept = [line for line in below.splitlines(keepends=True) if not line.startswith(" " * GOES_ON)]
    section.ca.items[key][2].value = "".join([f"# {reason}\n", *kept])


def _yaml_value(value: Any) -> Any:
    """A list on one line; a word in quotes where PyYAML would read it as another type, as `no` and `1e3`."""
    if isinstance(value, list):
        row = CommentedSeq(map(_yaml_value, value))
        row.fa.set_flow_style()
        return row
    if isinstance(value, str) and not pyyaml.safe_dump(value).startswith(value):  # PyYAML itself would quote it
        return DoubleQuotedScalarString(value)
    return value


def _represent_null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _represent_float(representer: Any, value: float) -> Any:
    """As PyYAML writes it: ruamel's YAML 1.2 writes 1e-07, which PyYAML's YAML 1.1 reads as a word."""
    return representer.represent_scalar("tag:yaml.org,2002:float", pyyaml.safe_dump(value).splitlines()[0])
