"""A challenger, a champion and the gate split -> the report of their gates, judged once and kept as files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convoy.core import atomic
from convoy.core.process import Say
from convoy.evaluation.plots import save_figure
from convoy.release.gates.evidence import GATE, Best, Evidence
from convoy.release.gates.measure import measure
from convoy.release.gates.registry import PublishParams, judge, outcome_of
from convoy.release.gates.report import Party, Report, draw, key_of
from convoy.release.gates.split import GateSplit, read_gate_split
from convoy.tracking.checked_bundle import CheckedBundle


@dataclass(frozen=True)
class Contender:
    """A version and its bundle."""

    party: Party
    bundle: CheckedBundle


@dataclass(frozen=True)
class StoredReport:
    """A report and its files, JSON and picture; no files where it could not be completed and is not kept."""

    report: Report
    files: dict[str, Path] = field(default_factory=dict)


def judge_once(
    task: str,
    challenger: Contender,
    champion: Contender | None,
    gate_split: Path,
    limits: PublishParams,
    recorded: dict[str, Any],
    folder: Path,
    say: Say,
) -> StoredReport:
    """The report on these two, on this gate split and by these limits; from `folder` where it was made before.

    `recorded` is from the build, as fields of Evidence: onnx, preflight, unknown. A report for which something was
    missing is not kept, so that it is made again.
    """
    gate, reason = _open_gate_split(task, gate_split, challenger, recorded.get("unknown", {}))
    reports = [
        stored.report for stored in read_stored_reports(folder) if gate and stored.report.gate_split == gate.sha256
    ]
    best = _best_before(reports, champion) if champion else {}
    content = {
        "challenger": challenger.party.digest,
        "champion": champion.party.digest if champion else None,
        "gate_split": gate.sha256 if gate else "",
        "limits": limits.model_dump(mode="json", exclude={"promote"}),
        "recorded": {name: _json_value(value) for name, value in recorded.items()},
        **{name: figure.value for name, figure in best.items()},
    }
    key = key_of(content)
    files = _files(folder / f"{key[:16]}.json")
    stored_report = _read_report(files["report"])
    if stored_report is not None:
        # Another MLflow may number the same bundles differently.
        parties = {"challenger": challenger.party, "champion": champion.party if champion else None}
        return _write_missing(stored_report.model_copy(update=parties), files)  # the picture too, where it is gone
    if gate is None:
        evidence = _evidence_without_gate(challenger, champion, recorded, reason)
    else:
        say(f"judging version {challenger.party.version} on {len(gate.labels):,} rows of the gate split")
        champion_bundle = champion.bundle if champion else None
        evidence = measure(gate, challenger.bundle, champion_bundle, limits, recorded).model_copy(update=best)
    verdicts = judge(evidence, limits)
    report = Report(
        task=task,
        challenger=challenger.party,
        champion=champion.party if champion else None,
        gate_split=gate.sha256 if gate else "",
        judged_before=len(reports),
        outcome=outcome_of(verdicts),
        verdicts=tuple(verdicts),
        limits=limits,
        evidence=evidence,
    )
    if evidence.unknown:
        return StoredReport(report)
    files["report"].unlink(missing_ok=True)  # of another format
    return _write_missing(report, files)


def read_stored_reports(folder: Path) -> list[StoredReport]:
    """All reports in a folder, the latest last; one of another format is left out."""
    paths = sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    reports = [(path, _read_report(path)) for path in paths]
    return [_write_missing(report, _files(path)) for path, report in reports if report is not None]


def _best_before(reports: list[Report], champion: Contender) -> dict[str, Best]:
    """The best accuracy and log loss of other champions, by reports on the same gate split, as fields of Evidence.

    A champion of other data may have learnt from rows of this split, so it does not count.
    """
    earlier = [
        (report.champion.version, report.evidence.champion)
        for report in reports
        if report.champion
        and report.champion.digest != champion.party.digest
        and report.evidence.champion
        and not report.evidence.obstacle
    ]
    if not earlier:
        return {}
    most_accurate = max(earlier, key=lambda entry: entry[1].accuracy)
    least_loss = min(earlier, key=lambda entry: entry[1].log_loss)
    return {
        "best_accuracy": Best(version=most_accurate[0], value=most_accurate[1].accuracy),
        "best_log_loss": Best(version=least_loss[0], value=least_loss[1].log_loss),
    }


def _open_gate_split(
    task: str, path: Path, challenger: Contender, recorded_unknown: dict[str, str]
) -> tuple[GateSplit | None, str]:
    if GATE in recorded_unknown:
        return None, recorded_unknown[GATE]
    card = challenger.bundle.card
    try:
        gate = read_gate_split(task, card.kind, path)
    except FileNotFoundError as error:
        return None, str(error)
    labels = card.labels
    if gate.names != labels:
        return None, f"{path} has the labels {', '.join(gate.names)}, the bundle {', '.join(labels)}; run `dvc repro`"
    return gate, ""


def _evidence_without_gate(
    challenger: Contender, champion: Contender | None, recorded: dict[str, Any], reason: str
) -> Evidence:
    unknown = {**recorded.get("unknown", {}), GATE: reason}
    return Evidence(
        rows=0,
        challenger=None,
        size_bytes=challenger.bundle.size,
        has_champion=champion is not None,
        **{**recorded, "unknown": unknown},
    )


def _write_missing(report: Report, files: dict[str, Path]) -> StoredReport:
    """Write the missing files; the JSON last, since it marks the report as complete."""
    if not files["picture"].exists():
        save_figure(draw(report), files["picture"])
    if not files["report"].exists():
        atomic.write_json(files["report"], report.model_dump(mode="json"))
    return StoredReport(report, files)


def _files(report: Path) -> dict[str, Path]:
    return {"report": report, "picture": report.with_suffix(".png")}


def _read_report(path: Path) -> Report | None:
    try:
        return Report.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _json_value(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
