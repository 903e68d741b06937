"""A challenger and what serves -> their gates, judged once; the report is kept below deployed/ and shown in MLflow."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy import layout
from convoy.gating import judging
from convoy.gating.judging import Contender, Kept
from convoy.gating.limits import PublishParams
from convoy.gating.report import Party, Report
from convoy.layout import DEPLOYED, Task
from convoy.params import read_section
from convoy.publishing import deployment, registry, tracking
from convoy.publishing.built import Winner

FOLDER = "gates"  # of a run's artifacts, and below deployed/
OUTCOME, REPORT = "gates", "gates.report"  # tags of a version

Say = Callable[[str], None]


def folder_of(task: Task) -> Path:
    """Where the reports of a task are kept: beside what they let serve, so that MLflow can be deleted."""
    return DEPLOYED / FOLDER / task


def judge(
    client: MlflowClient, task: Task, version: ModelVersion, serving: ModelVersion | None, winner: Winner, say: Say
) -> tuple[Report, bool]:
    """Judge a version against the one that serves, and show the report; says too whether promotion waits to be asked.

    A second time the kept report is shown, nothing is measured.
    """
    limits = read_section(PublishParams, "publish")
    with ExitStack() as stack:
        champion = None
        if serving is not None:
            party = _party(serving)
            nearby = [deployment.folder_of(task, party.digest)]
            champion = Contender(party, stack.enter_context(registry.bundle_of(client, serving, nearby)))
        kept = judging.judge_once(
            task,
            Contender(_party(version), winner.folder),
            champion,
            layout.prepared(task, "gate"),
            limits,
            winner.recorded,
            folder_of(task),
            say,
        )
    for line in kept.report.table():
        say(line)
    _show(client, version, kept)
    return kept.report, limits.promote == "asked"


def _party(version: ModelVersion) -> Party:
    return Party(version=str(version.version), digest=version.tags[registry.DIGEST])


def _show(client: MlflowClient, version: ModelVersion, kept: Kept) -> None:
    """The files on the version's run, the outcome as tags of the version; only what MLflow lacks is written."""
    run_id = str(version.run_id)
    present = tracking.list_files(client, run_id, FOLDER) if kept.files else {}
    for path in kept.files.values():
        content = path.read_bytes()
        if present.get(f"{FOLDER}/{path.name}") != len(content):
            tracking.put_file(client, run_id, f"{FOLDER}/{path.name}", content)
    wanted: dict[str, str] = {OUTCOME: kept.report.outcome}
    if kept.files:
        wanted[REPORT] = f"{FOLDER}/{kept.files['report'].name}"
    for name, value in wanted.items():
        if version.tags.get(name) != value:
            client.set_model_version_tag(version.name, str(version.version), name, value)
