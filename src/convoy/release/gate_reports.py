"""A challenger and the deployed version -> their gates, judged once; the report in deployed/, and MLflow shows it."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from convoy.core import paths, tasks
from convoy.core.params import read_section
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.core.tasks import Task
from convoy.data.findings import Findings, PreflightLimits, violations
from convoy.release import deployment
from convoy.release.gates.evidence import GATE, ONNX, PREFLIGHT, Difference
from convoy.release.registry_sync import GATES_OUTCOME, GATES_REPORT
from convoy.tracking import artifacts, registry
from convoy.tracking.build_state import matches_lock
from convoy.tracking.checked_bundle import CheckedBundle
from convoy.tracking.provenance import Lock
from convoy.tracking.run_content import read_json

if TYPE_CHECKING:
    from convoy.release.gates.report import Party, Report

FOLDER = "gates"  # of a run's artifacts, and below deployed/<task>/


@dataclass(frozen=True)
class Judgement:
    """A report, the name of its file among the run's artifacts if it is kept, and whether a person has to promote."""

    report: "Report"
    file: str | None
    needs_person: bool


def folder_of(task: str) -> Path:
    """Where the reports of a task are kept: in deployed/, so that MLflow can be lost."""
    return DEPLOYED / task / FOLDER


def judge(
    client: MlflowClient,
    task: str,
    version: ModelVersion,
    deployed_version: ModelVersion | None,
    bundle: CheckedBundle,
    lock: Lock,
    say: Say,
) -> Judgement:
    """Judge a version against the deployed one, and show the report; a second call shows the stored report."""
    from convoy.release.gates import run  # the gates take a second to import, and most publishes judge nothing
    from convoy.release.gates.registry import PublishParams

    limits = read_section(PublishParams, "publish", path=paths.RELEASE_PARAMS)
    entry = tasks.read().task(task)
    with ExitStack() as stack:
        champion = None
        if deployed_version is not None:
            party = _party(deployed_version)
            nearby = [deployment.folder_of(task, party.digest)]
            champion = run.Contender(party, stack.enter_context(registry.bundle_of(client, deployed_version, nearby)))
        stored = run.judge_once(
            task,
            run.Contender(_party(version), bundle),
            champion,
            paths.split_file(entry.data, "gate"),
            limits,
            _read_build_evidence(entry, lock),
            folder_of(task),
            say,
        )
    for line in stored.report.table():
        say(line)
    name = _put_files(client, version, stored.files["report"]) if stored.files else None
    _set_tags(client, version, stored.report.outcome, name)
    return Judgement(stored.report, name, limits.promote == "asked")


def put_stored_reports(client: MlflowClient, task: str, version: ModelVersion) -> None:
    """Show the stored reports of a version that MLflow lacks, as after its store was lost; the last one as tags too."""
    digest = registry.digest_of_version(version)
    files = sorted(folder_of(task).glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    reports = {path: content for path in files if (content := _judged(path)).get("challenger") == digest}
    names = [_put_files(client, version, path) for path in reports]
    if names and GATES_REPORT not in version.tags:
        _set_tags(client, version, [*reports.values()][-1]["outcome"], names[-1])


def _judged(path: Path) -> dict[str, str]:
    """Digest of the challenger and outcome, by a report; nothing by one of another format."""
    content = read_json(path)
    try:
        return {"challenger": content["challenger"]["digest"], "outcome": content["outcome"]}
    except (KeyError, TypeError):
        return {}


def _read_build_evidence(task: Task, lock: Lock) -> dict[str, Any]:
    """The findings of export and prepare, as fields of Evidence, from the files that dvc.lock names; or why not."""
    unknown: dict[str, str] = {}
    fields: dict[str, Any] = {"unknown": unknown}
    prepared = lock.outs(tasks.DataSet(task.data, task.kind).prepare)
    parity, findings = paths.reports(task.name) / "parity.json", paths.data_reports(task.data) / "findings.json"
    if _check_file(parity, lock.outs(task.export), unknown, ONNX):
        fields["onnx"] = _worst_difference([_difference(part) for part in read_json(parity).values()])
    if _check_file(findings, prepared, unknown, PREFLIGHT):
        section = ("data", task.data, "prepare", "limits")
        limits = read_section(PreflightLimits, *section)
        try:
            content = Findings.model_validate(read_json(findings))
            fields["preflight"] = tuple(violations(content, limits, ".".join(section)))
        except ValidationError:
            unknown[PREFLIGHT] = f"{findings} is of another release; `dvc repro` makes it anew"
    gate = paths.split_file(task.data, "gate")
    if paths.prepared(task.data).exists() and not gate.exists():
        unknown[GATE] = f"{gate} is not there (`dvc checkout` brings back what is not in git)"
    else:
        _check_file(paths.prepared(task.data), prepared, unknown, GATE)
    return fields


def _difference(part: dict[str, Any]) -> Difference:
    """The difference of one comparison, without the contributions of explanations, which no gate judges."""
    return Difference.model_validate({name: part[name] for name in Difference.model_fields if name in part})


def _worst_difference(parts: list[Difference]) -> Difference:
    return Difference(
        max_difference=max(part.max_difference for part in parts),
        class_flips=sum(part.class_flips for part in parts),
        n=sum(part.n for part in parts),
    )


def _check_file(path: Path, written: dict[str, str], unknown: dict[str, str], gate: str) -> bool:
    missing: list[str] = []
    if not matches_lock(path, written, missing):
        unknown[gate] = missing[0]
    return not missing


def _party(version: ModelVersion) -> "Party":
    from convoy.release.gates.report import Party

    return Party(version=str(version.version), digest=registry.digest_of_version(version))


def _put_files(client: MlflowClient, version: ModelVersion, report: Path) -> str:
    """Put JSON and picture on the version's run, as far as MLflow lacks them; gives the name of the artifact."""
    run_id = str(version.run_id)
    sizes = artifacts.list_files(client, run_id, FOLDER)
    files = [path for path in (report, report.with_suffix(".png")) if path.exists()]
    contents = {f"{FOLDER}/{path.name}": path.read_bytes() for path in files}
    missing = {name: content for name, content in contents.items() if sizes.get(name) != len(content)}
    if missing:
        artifacts.put_files(client, run_id, missing)
    return f"{FOLDER}/{report.name}"


def _set_tags(client: MlflowClient, version: ModelVersion, outcome: str, report: str | None) -> None:
    for name, value in ((GATES_OUTCOME, outcome), (GATES_REPORT, report)):
        if value is not None and version.tags.get(name) != value:
            client.set_model_version_tag(version.name, str(version.version), name, value)
