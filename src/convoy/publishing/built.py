"""What the pipeline has built for a task, as dvc.lock and the reports have it, and what it has not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convoy import layout
from convoy.gating.evidence import GATE, ONNX, PREFLIGHT, Difference
from convoy.layout import ARCHITECTURES, Architecture, Task
from convoy.params import read_section
from convoy.preflight.findings import Findings
from convoy.preflight.limits import PreflightLimits, violations
from convoy.publishing import baseline_runs
from convoy.publishing.provenance import Lock, same_file
from convoy.publishing.run_content import (
    PREPARE,
    RunContent,
    read_json,
    read_run,
    stage,
    training_file,
)


@dataclass(frozen=True)
class Winner:
    """The bundle that was built for a task, the candidate it holds, and what its build says that the gates ask for."""

    architecture: Architecture
    folder: Path
    recorded: dict[str, Any]  # onnx, preflight and unknown of convoy.gating.evidence.Evidence


@dataclass(frozen=True)
class Built:
    """What the pipeline has built for one task, and what it has not."""

    task: Task
    runs: dict[Architecture, RunContent]
    baselines: list[RunContent]
    winner: Winner | None
    missing: list[str]


def read_built(task: Task, lock: Lock) -> Built:
    """Read what is there for `task`; what is absent or older than its inputs is named, not guessed."""
    missing: list[str] = []
    evaluated = _is_current(lock, stage("evaluate", task), missing)
    winner = _winner(task, lock, missing)
    runs = {}
    for architecture in ARCHITECTURES:
        train = stage("train", task, architecture)
        fingerprint = training_file(task, architecture)
        if _is_current(lock, train, missing) and _is_of_lock(fingerprint, lock.outs(train), missing):
            is_winner = winner is not None and winner.architecture == architecture
            runs[architecture] = read_run(task, architecture, lock, evaluated, is_winner, missing)
    baselines = _read_baselines(task, lock, missing)
    return Built(task, runs, baselines, winner, list(dict.fromkeys(missing)))


def _read_baselines(task: Task, lock: Lock, missing: list[str]) -> list[RunContent]:
    current = _is_current(lock, baseline_runs.STAGE, missing)
    if not current or not _is_of_lock(layout.BASELINES, lock.outs(baseline_runs.STAGE), missing):
        return []
    return baseline_runs.read_baseline_runs(task, lock)


def _is_current(lock: Lock, name: str, missing: list[str]) -> bool:
    if name not in lock.stages:
        missing.append(f"stage {name} has not run")
        return False
    if outdated := lock.outdated(name):
        missing.append(f"stage {name} is older than {', '.join(outdated)}")
        return False
    return True


def _is_judged(task: Task, lock: Lock, missing: list[str]) -> bool:
    """Whether evaluate judged the very bundle that export made and that lies here, and its verdict is still there."""
    bundle, exported = layout.bundle(task), lock.outs(stage("export", task))
    if lock.deps(stage("evaluate", task)).get(str(bundle)) != exported.get(str(bundle)):
        missing.append(f"{stage('evaluate', task)} has not judged the bundle that {stage('export', task)} made")
        return False
    verdict = layout.reports(task) / "test.json"
    found = [
        _is_of_lock(bundle, exported, missing),
        _is_of_lock(verdict, lock.outs(stage("evaluate", task)), missing),
    ]
    return all(found)


def _is_of_lock(path: Path, written: dict[str, str], missing: list[str]) -> bool:
    if not path.exists():
        missing.append(f"{path} is not there (`dvc checkout` brings back what is not in git)")
        return False
    if not same_file(path, written.get(str(path), "")):
        missing.append(f"{path} is not {'the folder' if path.is_dir() else 'the file'} that dvc.lock names")
        return False
    return True


def _winner(task: Task, lock: Lock, missing: list[str]) -> Winner | None:
    """The bundle that evaluate judged; None where it, or a figure that speaks for it, is not the one of dvc.lock."""
    current = [_is_current(lock, stage(name, task), missing) for name in ("choose", "export", "evaluate")]
    if not all(current) or not _is_judged(task, lock, missing):
        return None
    if not _is_of_lock(layout.choice(task), lock.outs(stage("choose", task)), missing):
        return None
    architecture = read_json(layout.choice(task))["architecture"]
    train = stage("train", task, architecture)
    metrics = layout.reports(task) / architecture / "metrics.json"
    reports = [_is_of_lock(path, lock.outs(train), missing) for path in (metrics, training_file(task, architecture))]
    if not _is_current(lock, train, missing) or not all(reports):
        return None
    return Winner(architecture, layout.bundle(task), _recorded(task, lock))


def _recorded(task: Task, lock: Lock) -> dict[str, Any]:
    """What export proved and prepare found, by the files that dvc.lock names, and why where they are not there."""
    unknown: dict[str, str] = {}
    found: dict[str, Any] = {"unknown": unknown}
    parity, findings = layout.reports(task) / "parity.json", layout.reports(task) / "findings.json"
    if _is_of_lock_or_why(parity, lock.outs(stage("export", task)), unknown, ONNX):
        parts = [Difference.model_validate(part) for part in read_json(parity).values()]
        found["onnx"] = Difference(
            max_difference=max(part.max_difference for part in parts),
            class_flips=sum(part.class_flips for part in parts),
            n=sum(part.n for part in parts),
        )
    if _is_of_lock_or_why(findings, lock.outs(PREPARE[task]), unknown, PREFLIGHT):
        try:
            known = Findings.model_validate(read_json(findings))
            limits = read_section(PreflightLimits, PREPARE[task], "limits")
            found["preflight"] = tuple(violations(known, limits, f"{PREPARE[task]}.limits"))
        except ValidationError:
            unknown[PREFLIGHT] = f"{findings} is of another release; `dvc repro` makes it anew"
    _is_of_lock_or_why(layout.prepared(task, "gate"), lock.outs(PREPARE[task]), unknown, GATE)
    return found


def _is_of_lock_or_why(path: Path, written: dict[str, str], unknown: dict[str, str], gate: str) -> bool:
    missing: list[str] = []
    if not _is_of_lock(path, written, missing):
        unknown[gate] = missing[0]
    return not missing
