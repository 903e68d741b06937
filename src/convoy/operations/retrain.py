"""Fetches new data, builds, publishes and reports it in Markdown for the person who decides: on a schedule."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy.bundles.bundle import BundleInvalid, read_bundle
from convoy.core import atomic, paths, tasks
from convoy.core.process import Say
from convoy.release import deployment, gate_reports
from convoy.release.gates import run
from convoy.tracking import registry

Champions = dict[str, ModelVersion | None]
_DECISION = "decision"  # tag that `publish` gives a version


class RetrainingFailed(RuntimeError):
    """A step ended with an error, which it has printed itself."""


def rebuild(say: Say) -> tuple[str, int]:
    """Fetch new data, build what depends on it, publish; gives the output of publishing and its exit status.

    Raises RetrainingFailed where an earlier step fails. Where publishing fails for one task, the others have changed
    all the same, and the report describes them.

    New data is what DVC's imports have at their origin (`dvc import-url`), and what has changed at the `path` in
    params.yaml, which DVC checks by itself.
    """
    imports = _imported_files()
    if imports:
        _run_required("dvc", "update", *imports)
    say(f"imports that were looked at anew: {', '.join(imports) or 'none'}")
    _run_required("convoy", "verify", "--mend")
    _run_required("dvc", "repro")
    output, status = _run_module("convoy", "publish", shown=False)
    say(output.rstrip())
    return output, status


def champions(client: MlflowClient) -> Champions:
    """The champion of each task."""
    return {task: registry.version_with(client, task, "champion") for task in tasks.read().tasks}


def write_report(client: MlflowClient, path: Path, before: Champions, published: str) -> None:
    """Write a Markdown report of builds, earlier champions and decisions; `published` is the output of publishing."""
    lines = [f"# Retrained on {datetime.now(UTC):%Y-%m-%d}", ""]
    for task in tasks.read().tasks:
        lines += [f"## {task}", "", *_report_task(client, task, before.get(task)), ""]
    fenced = published.rstrip().replace("```", "'''")
    lines += ["## What `python -m convoy publish` said", "", "```", *fenced.splitlines(), "```", ""]
    lines += ["## Figures against the last commit", "", *_changed_metrics()]
    atomic.write_bytes(path, ("\n".join(lines) + "\n").encode())


def _imported_files() -> list[str]:
    """The .dvc files of data that was imported from elsewhere."""
    from dvc.repo import Repo

    with Repo() as repo:
        return sorted(stage.path_in_repo for stage in repo.index.stages if stage.is_import)


def _report_task(client: MlflowClient, task: str, before: ModelVersion | None) -> Iterator[str]:
    try:
        digest = read_bundle(paths.bundle(task)).digest
    except BundleInvalid as error:
        yield f"There is no bundle to publish: {error}"
        return
    version = registry.find_version(client, task, digest)
    is_deployed = deployment.current_digest(task) == digest
    yield "| | version | bundle |"
    yield "|---|---|---|"
    if before is not None:
        yield f"| champion before | {before.version} | {registry.digest_of_version(before)[:12]} |"
    if version is None:
        yield f"| built | not registered | {digest[:12]} |"
        return
    yield f"| built, {'serves now' if is_deployed else 'does not serve'} | {version.version} | {digest[:12]} |"
    yield ""
    yield f"Decision: {version.tags.get(_DECISION, 'none yet, it is asked for')}."
    yield from _report_gates(task, digest)
    if not is_deployed:
        yield ""
        yield f"To let it serve all the same: `python -m convoy promote --task {task} --version {version.version}`."


def _report_gates(task: str, digest: str) -> Iterator[str]:
    """The last stored gate report of a bundle, a line for each gate."""
    stored = [entry.report for entry in run.read_stored_reports(gate_reports.folder_of(task))]
    reports = [report for report in stored if report.challenger.digest == digest]
    if not reports:
        return
    yield from ("", reports[-1].title, "", "| gate | | |", "|---|---|---|")
    for verdict in reports[-1].verdicts:
        yield f"| {verdict.gate} | {verdict.outcome} | {verdict.sentence.replace('|', ' ')} |"


def _changed_metrics() -> list[str]:
    """DVC's comparison of the metrics with HEAD; none outside git."""
    command = [sys.executable, "-m", "dvc", "metrics", "diff", "--md", "HEAD"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        process.stdout.splitlines()
        if process.returncode == 0 and process.stdout.strip()
        else ["The same, or no commit yet."]
    )


def _run_required(*words: str) -> None:
    """Run a step that later steps need. Raises RetrainingFailed."""
    _, status = _run_module(*words)
    if status:
        raise RetrainingFailed(f"`{' '.join(words[:2])}` ended with {status}; the deployed models stay as they are")


def _run_module(*words: str, shown: bool = True) -> tuple[str, int]:
    """Run a module as a user would; gives its output where it is not `shown`, and its exit status."""
    sys.stdout.flush()
    process = subprocess.run(
        [sys.executable, "-m", *words],
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        text=True,
        check=False,
    )
    return process.stdout or "", process.returncode
