"""`python -m convoy init`: look, tell, propose, and write where asked to."""

from pathlib import Path

from convoy.core import paths, stages
from convoy.core.params import read_section
from convoy.core.paths import Task
from convoy.core.progress import Say
from convoy.data.limits import PreflightLimits
from convoy.data.raw import explain, require_labels
from convoy.operations.init import params_file
from convoy.operations.init.columns import Columns
from convoy.operations.init.detection import READ, Detected, detect
from convoy.operations.init.proposal import propose
from convoy.operations.init.survey import look
from convoy.sources.items import SourceRefused


def init(
    task: Task,
    path: Path,
    encoding: str,
    labels: tuple[str, ...] | None,
    options: Columns,
    write: bool,
    say: Say,
) -> None:
    """Raises SourceRefused, ParamsInvalid where the data or params.yaml are not what they must be."""
    kept = params_file.columns(paths.PARAMS, stages.fetch(task), path)
    detected = detect(task, path, encoding, labels, options, kept)
    say(f"{path}: {READ[detected.kind]}")
    if detected.kind == "table":
        for line in _tell_columns(task, detected):
            say(line)
    survey = look(detected, task)
    for line in survey.tell():
        say(line)
    try:
        require_labels(survey.counts, labels)
    except SourceRefused as refused:
        raise SourceRefused(f"{path}: {refused}; {explain(survey.rejections)}") from None
    proposed = params_file.changed(paths.PARAMS, propose(task, detected, survey))
    limits = (stages.prepare(task), "limits")
    least = read_section(PreflightLimits, *limits).min_per_label
    for line in survey.warn_of_rare(f"{'.'.join(limits)}.min_per_label", least):
        say(line)
    patch = params_file.difference(paths.PARAMS, proposed)
    if not patch:
        say(f"{paths.PARAMS} says all this already; next: dvc repro")
        return
    say(patch)
    if write:
        params_file.write(paths.PARAMS, proposed)
        say(f"{paths.PARAMS} is written; next: dvc repro, then python -m convoy publish")
    else:
        say(f"nothing is written; with --write this goes into {paths.PARAMS}")


def _tell_columns(task: Task, detected: Detected) -> list[str]:
    table = detected.params.table
    said = {key: reason or f"as {paths.PARAMS} says" for key, reason in detected.reasons.items()}
    return [
        f"column {table.content!r} is the {task} ({said['content']}), column {table.label!r} the label "
        f"({said['label']}); --content and --label name others",
        *detected.doubts,
    ]
