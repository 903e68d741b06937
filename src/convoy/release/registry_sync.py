"""The history -> MLflow: the alias of the champion, tags of versions, and a table of all decisions."""

import json
from contextlib import suppress
from datetime import datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy.release import deployment, journal
from convoy.release.decision import CHANGES, ApprovalRefused, Decision, History
from convoy.tracking import artifacts, mlflow_runs, registry, settings
from convoy.tracking.run_content import RunContent

DECISION = "decision"  # tag of a version: the last decision on it; each also has a tag decision.<number>
GATES_OUTCOME, GATES_REPORT = "gates", "gates.report"  # tags of a version: how its gates ended, and their report
EXPERIMENT = "convoy-decisions"  # apart from the trainings, in whose charts it would show
LINES, TABLE = "decisions.jsonl", "decisions.json"
FROM_MLFLOW = ("pull", "restored")  # decisions by which a machine follows MLflow's champion
_COLUMNS = ("number", "at", "who", "kind", "from", "to", "why", "figures", "gate report", "git revision")


class ChampionMoved(ApprovalRefused):
    """The champion of an MLflow that several machines share is not the one that this machine last saw."""


def require_seen_champion(client: MlflowClient, task: str, target: str) -> None:
    """Raise ChampionMoved where MLflow is shared and another machine has moved its alias `champion` since.

    `target` is the digest that is to be deployed: where the alias names it, a kill came between the alias and the line.
    """
    if settings.is_local(client.tracking_uri):
        return
    champion = registry.version_with(client, task, "champion")
    digest = None if champion is None else champion.tags.get(registry.DIGEST)
    if champion is None or digest in (target, deployment.current_digest(task)):
        return
    if digest != _last_seen(journal.read_history(task), set(_read_lines(client, task))):
        raise ChampionMoved(_moved_message(task, champion))


def move_champion(client: MlflowClient, task: str, version: ModelVersion) -> bool:
    """Give a version the alias `champion`; returns whether anything changed. Raises ChampionMoved.

    MLflow cannot compare and set in one step, so it is read again: of two that come within milliseconds the one whose
    alias stays is the champion, and the other is told, now or at its next command.
    """
    require_seen_champion(client, task, registry.digest_of_version(version))
    changed = registry.set_alias(client, task, "champion", version.version)
    champion = None if settings.is_local(client.tracking_uri) else registry.version_with(client, task, "champion")
    if champion is not None and str(champion.version) != str(version.version):
        raise ChampionMoved(_moved_message(task, champion))
    return changed


def _moved_message(task: str, champion: ModelVersion) -> str:
    return (
        f"MLflow's champion of {task} is version {champion.version}, which another machine let serve, or this one "
        f"before deployed/ was lost; run `python -m convoy pull --task {task}` first, then decide again"
    )


def _last_seen(history: History, mlflow_lines: set[bytes]) -> str | None:
    """The digest that the alias had when this machine last moved or followed it: of the last change MLflow knows of."""
    for change in reversed(history.changes):
        if change.kind in FROM_MLFLOW or history.lines[change.number - 1] in mlflow_lines:
            return change.after.digest
    return None


def update_mlflow(client: MlflowClient, task: str) -> None:
    """Update MLflow by deployed/ and its history; a second call changes nothing.

    The alias stays where another machine has moved it: whoever decides next is told. That of a withdrawn task goes
    last: while it is there, the next `publish` does what a kill has left out.
    """
    history = journal.read_history(task)
    versions = _versions_by_digest(client, task)
    deployed = versions.get(deployment.current_digest(task) or "")
    if deployed is not None:
        with suppress(ChampionMoved):
            move_champion(client, task, deployed)
    for digest, version in versions.items():
        for name, value in _decision_tags(history, digest).items():
            if version.tags.get(name) != value:
                client.set_model_version_tag(version.name, str(version.version), name, value)
    if history.decisions:
        _put_table(client, task, history)
    if deployed is None and history.is_withdrawn:
        with suppress(ChampionMoved):
            require_seen_champion(client, task, "")
            registry.remove_alias(client, task, "champion")


def lacks_last_line(client: MlflowClient, task: str) -> bool:
    """Whether MLflow's copy of the history lacks the last line here."""
    return not {*journal.read_history(task).lines[-1:]} <= {*_read_lines(client, task)}


def has_later_lines(client: MlflowClient, task: str) -> bool:
    """Whether MLflow's copy has lines that follow the last line here, as after deployed/ was lost or is an older copy.

    Nothing comes back from there, so it is for a person to know. Of an MLflow that machines share it says nothing:
    another machine may go on from the same line.
    """
    if not settings.is_local(client.tracking_uri):
        return False
    last = journal.hash_of_last(journal.read_history(task).lines)
    return any(record.previous == last for line in _read_lines(client, task) if (record := journal.record_of(line)))


def run_key(task: str) -> str:
    """The key of the run that holds a task's history in MLflow."""
    return f"decisions:{task}"


def _versions_by_digest(client: MlflowClient, task: str) -> dict[str, ModelVersion]:
    """Digest -> the version that holds it, the oldest where there are several."""
    newest_first = reversed(registry.versions(client, task))
    return {version.tags[registry.DIGEST]: version for version in newest_first if registry.DIGEST in version.tags}


def _decision_tags(history: History, digest: str) -> dict[str, str]:
    last = history.about(digest)
    tags = {DECISION: last.told} if last else {}
    for decision in history.decisions:
        before = decision.before if decision.kind in CHANGES else None
        if digest in (decision.after.digest, before and before.digest):
            tags[f"{DECISION}.{decision.number:04}"] = decision.told
    return tags


def _put_table(client: MlflowClient, task: str, history: History) -> None:
    """Put one run per task, which holds the lines as they are and a table of them for the UI.

    Lines that are only there stay: those of other machines, and of a history that was lost here.
    """
    local = set(history.lines)
    lines = [*history.lines, *(line for line in _read_lines(client, task) if line not in local)]
    decisions = journal.decisions_in_lines(lines)
    decisions.sort(key=lambda decision: decision.at)
    table = {"columns": list(_COLUMNS), "data": [_table_row(decision) for decision in decisions]}
    began_ms, ended_ms = (
        int(datetime.fromisoformat(end.at).timestamp() * 1000) for end in (decisions[0], decisions[-1])
    )
    content = RunContent(
        name=task,
        key=run_key(task),
        started_ms=began_ms,
        ended_ms=ended_ms,
        tags={"convoy.task": task, "mlflow.loggedArtifacts": json.dumps([{"path": TABLE, "type": "table"}])},
        files={
            LINES: b"".join(line + b"\n" for line in lines),
            TABLE: json.dumps(table, ensure_ascii=False).encode("utf-8"),
        },
        note=f"Every decision on what serves for {task}: `python -m convoy history --task {task}` prints them.",
    )
    mlflow_runs.complete_run(client, mlflow_runs.experiment_named(client, EXPERIMENT), content)


def _table_row(decision: Decision) -> list[Any]:
    content = decision.model_dump(mode="json", by_alias=True)
    figures = json.dumps(decision.figures, ensure_ascii=False)
    models = [str(decision.before or "nothing"), str(decision.after)]
    cells = [content["number"], content["at"], content["who"], content["kind"], *models]
    return [*cells, content["why"], figures, content["gate_report"], content["revision"]]


def _read_lines(client: MlflowClient, task: str) -> list[bytes]:
    """The lines of MLflow's copy; none where there is no copy. Raises ArtifactRefused, MlflowException, OSError."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    run = mlflow_runs.find_run(client, experiment.experiment_id, run_key(task)) if experiment else None
    if run is None or LINES not in artifacts.list_files(client, run):
        return []
    return [line for line in artifacts.read(client, run, LINES).split(b"\n") if line]
