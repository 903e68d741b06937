"""The history -> what MLflow shows of it: aliases, tags of versions, a table; and back again where it was lost."""

import json
from contextlib import suppress
from datetime import datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from convoy.bundles.bundle import Anchor
from convoy.core.paths import Task
from convoy.core.process import Say
from convoy.release import deployment, journal
from convoy.release.decision import CHANGES, Decision, History
from convoy.tracking import artifacts, mlflow_runs, registry
from convoy.tracking.artifacts import ArtifactRefused
from convoy.tracking.run_content import RunContent

DECISION = "decision"  # tag of a version: the last decision on it; each has a tag of its own too, decision.<number>
EXPERIMENT = "convoy-decisions"  # apart from the trainings, whose charts it would be in
HISTORY = "convoy.history"  # tag of the registered model: how far the history had come when it was last shown
LINES, TABLE = "decisions.jsonl", "decisions.json"
_COLUMNS = ("number", "at", "who", "kind", "from", "to", "why", "figures", "gate report", "git revision")


def update_mlflow(client: MlflowClient, task: Task) -> None:
    """Bring what MLflow shows in line with deployed/ and its history; again and again to the same."""
    history = journal.read_history(task)
    versions = _versions(client, task)
    serving = versions.get(deployment.current_digest(task) or "")
    if serving is not None:
        registry.set_alias(client, task, "champion", serving.version)
    for digest, version in versions.items():
        for name, value in _tags(history, digest).items():
            if version.tags.get(name) != value:
                client.set_model_version_tag(version.name, str(version.version), name, value)
    if history.decisions:
        shown = _lines_in_mlflow(client, task)
        _show_table(client, task, history, shown)
        _show_anchor(client, task, history, shown)


def restore_history(client: MlflowClient, task: Task, say: Say) -> None:
    """Append what MLflow knows to have followed on the last line here: all, where deployed/ was lost."""
    missing, lost = missing_lines(client, task)
    if missing:
        journal.write_lines(task, missing)
        say(f"{len(missing)} lines of the history were missing in {journal.path_of(task)}; MLflow had them")
    if lost:
        say(lost)


def missing_lines(client: MlflowClient, task: Task) -> tuple[list[bytes], str]:
    """The lines that follow on the last one here, by MLflow's copy; and what of the history is in neither place.

    The second is told in a sentence, empty where nothing is known to be lost.
    """
    local, shown = journal.read_chain(task).lines, _lines_in_mlflow(client, task)
    anchor = _anchor_in_mlflow(client, task)
    lost = "" if anchor is None or _has(anchor, [*local, *shown]) else _lost(task, anchor)
    return _continuation(shown, journal.link(local)), lost


def _versions(client: MlflowClient, task: Task) -> dict[str, ModelVersion]:
    """Digest -> the version that holds it, the oldest where there are several."""
    found = client.search_model_versions(f"name = '{registry.model_name(task)}'")
    ordered = sorted(found, key=lambda version: -int(version.version))
    return {version.tags[registry.DIGEST]: version for version in ordered if registry.DIGEST in version.tags}


def _tags(history: History, digest: str) -> dict[str, str]:
    last = history.about(digest)
    tags = {DECISION: last.told} if last else {}
    for decision in history.decisions:
        before = decision.before if decision.kind in CHANGES else None
        if digest in (decision.after.digest, before and before.digest):
            tags[f"{DECISION}.{decision.number:04}"] = decision.told
    return tags


def _show_anchor(client: MlflowClient, task: Task, history: History, shown: list[bytes]) -> None:
    """Note how far the history has come, after its lines; an anchor whose line is lost stays, as what tells of it.

    Other machines may have appended to MLflow's copy, so theirs counts too.
    """
    anchor = journal.anchor_of(history)
    known = _anchor_in_mlflow(client, task)
    if known != anchor and (known is None or _has(known, [*history.lines, *shown])):
        with suppress(MlflowException):  # no model is registered yet
            client.set_registered_model_tag(registry.model_name(task), HISTORY, anchor.model_dump_json())


def _anchor_in_mlflow(client: MlflowClient, task: Task) -> Anchor | None:
    try:
        return Anchor.model_validate_json(client.get_registered_model(registry.model_name(task)).tags[HISTORY])
    except (KeyError, ValidationError, MlflowException):
        return None


def _has(anchor: Anchor, lines: list[bytes]) -> bool:
    return any(journal.link([line]) == anchor.sha256 for line in lines)


def _lost(task: Task, anchor: Anchor) -> str:
    return (
        f"tag {HISTORY} of MLflow's {registry.model_name(task)} says that the history had {anchor.lines} lines; "
        f"the last of them is neither in {journal.path_of(task)} nor in MLflow's copy. Put back the file of a "
        "backup; where the line is lost for good, delete the tag"
    )


def _show_table(client: MlflowClient, task: Task, history: History, shown: list[bytes]) -> None:
    """One run per task, which holds the lines as they are and a table of them that the UI draws."""
    local = list(history.lines)
    elsewhere = [line for line in shown if line not in set(local)]  # of other machines
    known = journal.parse_apart([*local, *elsewhere])
    known.sort(key=lambda decision: decision.at)
    table = {"columns": list(_COLUMNS), "data": [_row(decision) for decision in known]}
    began_ms, ended_ms = (int(datetime.fromisoformat(each.at).timestamp() * 1000) for each in (known[0], known[-1]))
    content = RunContent(
        name=task,
        key=f"decisions:{task}",
        started_ms=began_ms,
        ended_ms=ended_ms,
        tags={"convoy.task": task, "mlflow.loggedArtifacts": json.dumps([{"path": TABLE, "type": "table"}])},
        files={
            LINES: b"".join(line + b"\n" for line in [*local, *elsewhere]),
            TABLE: json.dumps(table, ensure_ascii=False).encode("utf-8"),
        },
        note=f"Every decision on what serves for {task}: `python -m convoy history --task {task}` prints them.",
    )
    mlflow_runs.complete_run(client, mlflow_runs.experiment_named(client, EXPERIMENT), content)


def _row(decision: Decision) -> list[Any]:
    content = decision.model_dump(mode="json", by_alias=True)
    figures = json.dumps(decision.figures, ensure_ascii=False)
    models = [str(decision.before or "nothing"), str(decision.after)]
    about = [content["number"], content["at"], content["who"], content["kind"], *models]
    return [*about, content["why"], figures, content["gate_report"], content["revision"]]


def _lines_in_mlflow(client: MlflowClient, task: Task) -> list[bytes]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    run = mlflow_runs.find_run(client, experiment.experiment_id, f"decisions:{task}") if experiment else None
    if run is None:
        return []
    try:
        content = artifacts.read(client, run.info.run_id, LINES)
    except (ArtifactRefused, MlflowException, OSError):  # never put there, or lost; the next `show` puts it
        return []
    return [line for line in content.split(b"\n") if line]


def _continuation(lines: list[bytes], link: str) -> list[bytes]:
    """The lines that follow on one with this sha256, each on the one before."""
    following = {record.previous: line for line in lines if (record := journal.record_of(line))}
    found = []
    while link in following:
        found.append(following.pop(link))
        link = journal.link(found)
    return found
