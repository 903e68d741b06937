"""A challenger and what serves -> their gates, judged once; the report is kept below deployed/ and shown in MLflow."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from convoy.core import paths, stages
from convoy.core.params import read_section
from convoy.core.paths import DEPLOYED, Task
from convoy.core.process import Say
from convoy.data.findings import Findings, PreflightLimits, violations
from convoy.release import deployment
from convoy.release.gates import run
from convoy.release.gates.evidence import GATE, ONNX, PREFLIGHT, Difference, PublishParams
from convoy.release.gates.report import Party, Report
from convoy.release.gates.run import Contender, StoredReport
from convoy.tracking import artifacts, registry
from convoy.tracking.build_state import Winner, is_of_lock
from convoy.tracking.provenance import Lock
from convoy.tracking.run_content import read_json

FOLDER = "gates"  # of a run's artifacts, and below deployed/<task>/
OUTCOME, REPORT = "gates", "gates.report"  # tags of a version


@dataclass(frozen=True)
class Judged:
    """A report, the name of its file among the run's artifacts if it is kept, and whether promotion is asked for."""

    report: Report
    file: str | None
    asked: bool


def folder_of(task: Task) -> Path:
    """Where the reports of a task are kept: beside what they let serve, so that MLflow can be deleted."""
    return DEPLOYED / task / FOLDER


def judge(
    client: MlflowClient, task: Task, version: ModelVersion, serving: ModelVersion | None, winner: Winner, say: Say
) -> Judged:
    """Judge a version against the one that serves, and show the report. A second time the kept one is shown."""
    limits = read_section(PublishParams, "publish")
    with ExitStack() as stack:
        champion = None
        if serving is not None:
            party = _party(serving)
            nearby = [deployment.folder_of(task, party.digest)]
            champion = Contender(party, stack.enter_context(registry.bundle_of(client, serving, nearby)))
        kept = run.judge_once(
            task,
            Contender(_party(version), winner.folder),
            champion,
            paths.prepared(task, "gate"),
            limits,
            recorded(task, winner.lock),
            folder_of(task),
            say,
        )
    for line in kept.report.table():
        say(line)
    _show_files(client, version, kept)
    _show_tags(client, version, kept)
    return Judged(kept.report, _file(kept), limits.promote == "asked")


def recorded(task: Task, lock: Lock) -> dict[str, Any]:
    """What export proved and prepare found, as fields of Evidence, by the files that dvc.lock names; or why not."""
    unknown: dict[str, str] = {}
    found: dict[str, Any] = {"unknown": unknown}
    parity, findings = paths.reports(task) / "parity.json", paths.data_reports(task) / "findings.json"
    if _is_known(parity, lock.outs(stages.export(task)), unknown, ONNX):
        found["onnx"] = _worst([_difference(part) for part in read_json(parity).values()])
    if _is_known(findings, lock.outs(stages.prepare(task)), unknown, PREFLIGHT):
        limits = read_section(PreflightLimits, stages.prepare(task), "limits")
        try:
            known = Findings.model_validate(read_json(findings))
            found["preflight"] = tuple(violations(known, limits, f"{stages.prepare(task)}.limits"))
        except ValidationError:
            unknown[PREFLIGHT] = f"{findings} is of another release; `dvc repro` makes it anew"
    _is_known(paths.prepared(task, "gate"), lock.outs(stages.prepare(task)), unknown, GATE)
    return found


def _difference(part: dict[str, Any]) -> Difference:
    """Of one comparison; that of the explanations tells of their contributions too, which no gate judges."""
    return Difference.model_validate({name: part[name] for name in Difference.model_fields if name in part})


def _worst(parts: list[Difference]) -> Difference:
    return Difference(
        max_difference=max(part.max_difference for part in parts),
        class_flips=sum(part.class_flips for part in parts),
        n=sum(part.n for part in parts),
    )


def _is_known(path: Path, written: dict[str, str], unknown: dict[str, str], gate: str) -> bool:
    missing: list[str] = []
    if not is_of_lock(path, written, missing):
        unknown[gate] = missing[0]
    return not missing


def restore_reports(client: MlflowClient, task: Task, version: ModelVersion) -> None:
    """Show what is kept of a version and MLflow lacks, as after it was deleted; the last judgement as tags."""
    digest = registry.digest_of_version(version)
    known = [kept for kept in run.read_stored_report(folder_of(task)) if kept.report.challenger.digest == digest]
    for kept in known:
        _show_files(client, version, kept)
    if known and REPORT not in version.tags:
        _show_tags(client, version, known[-1])


def _party(version: ModelVersion) -> Party:
    return Party(version=str(version.version), digest=registry.digest_of_version(version))


def _file(kept: StoredReport) -> str | None:
    return f"{FOLDER}/{kept.files['report'].name}" if kept.files else None


def _show_files(client: MlflowClient, version: ModelVersion, kept: StoredReport) -> None:
    """JSON and picture on the version's run; only what MLflow lacks is written."""
    run_id = str(version.run_id)
    present = artifacts.list_files(client, run_id, FOLDER) if kept.files else {}
    for path in kept.files.values():
        content = path.read_bytes()
        if present.get(f"{FOLDER}/{path.name}") != len(content):
            artifacts.put_file(client, run_id, f"{FOLDER}/{path.name}", content)


def _show_tags(client: MlflowClient, version: ModelVersion, kept: StoredReport) -> None:
    for name, value in ((OUTCOME, kept.report.outcome), (REPORT, _file(kept))):
        if value is not None and version.tags.get(name) != value:
            client.set_model_version_tag(version.name, str(version.version), name, value)
