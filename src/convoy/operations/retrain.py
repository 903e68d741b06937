"""New data -> a new build, its place in MLflow, and a report of it in Markdown, for whoever decides: on a schedule."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from convoy.bundles.bundle import BundleInvalid, read_bundle
from convoy.core import atomic, paths
from convoy.core.paths import TASKS, Task
from convoy.core.process import Say
from convoy.release import deployment, gate_reports
from convoy.release.gates import run
from convoy.tracking import registry

Champions = dict[Task, ModelVersion | None]
_DECISION = "decision"  # tag that `publish` gives a version


class RetrainingFailed(RuntimeError):
    """A step ended with an error, which it has told itself."""


def rebuild(say: Say) -> tuple[str, int]:
    """Fetch new data, build what depends on it, publish; gives what publishing said, and its exit status.

    Raises RetrainingFailed for a step before it. Where publishing fails for one task the others have changed all the
    same, and a report tells of them.

    New data is what DVC's imports have at their origin (`dvc import-url`), and whatever has changed at the `path` that
    params.yaml names, which DVC looks at by itself.
    """
    imports = _imports()
    if imports:
        _run_whole("dvc", "update", *imports)
    say(f"imports that were looked at anew: {', '.join(imports) or 'none'}")
    _run_whole("convoy", "verify", "--mend")
    _run_whole("dvc", "repro")
    said, status = _run("convoy", "publish", shown=False)
    say(said.rstrip())
    return said, status


def champions(client: MlflowClient) -> Champions:
    """Who serves now."""
    return {task: registry.version_with(client, task, "champion") for task in TASKS}


def write_report(client: MlflowClient, path: Path, before: Champions, said: str) -> None:
    """What was built, what served before, and what was decided, as Markdown; `said` is what publishing said."""
    lines = [f"# Retrained on {datetime.now(UTC):%Y-%m-%d}", ""]
    for task in TASKS:
        lines += [f"## {task}", "", *_task(client, task, before[task]), ""]
    fenced = said.rstrip().replace("```", "'''")
    lines += ["## What `python -m convoy publish` said", "", "```", *fenced.splitlines(), "```", ""]
    lines += ["## Figures against the last commit", "", *_metrics()]
    atomic.write_bytes(path, ("\n".join(lines) + "\n").encode())


def _imports() -> list[str]:
    """The .dvc files of data that was imported from elsewhere."""
    from dvc.repo import Repo

    with Repo() as repo:
        return sorted(stage.path_in_repo for stage in repo.index.stages if stage.is_import)


def _task(client: MlflowClient, task: Task, before: ModelVersion | None) -> Iterator[str]:
    try:
        built = read_bundle(paths.bundle(task)).digest
    except BundleInvalid as error:
        yield f"There is no bundle to publish: {error}"
        return
    version = registry.find_version(client, task, built)
    serves = deployment.current_digest(task) == built
    yield "| | version | bundle |"
    yield "|---|---|---|"
    if before is not None:
        yield f"| champion before | {before.version} | {registry.digest_of_version(before)[:12]} |"
    if version is None:
        yield f"| built | not registered | {built[:12]} |"
        return
    yield f"| built, {'serves now' if serves else 'does not serve'} | {version.version} | {built[:12]} |"
    yield ""
    yield f"Decision: {version.tags.get(_DECISION, 'none yet, it is asked for')}."
    yield from _gates(task, built)
    if not serves:
        yield ""
        yield f"To let it serve all the same: `python -m convoy promote --task {task} --version {version.version}`."


def _gates(task: Task, digest: str) -> Iterator[str]:
    """The last judgement of a bundle that is kept, a line for each gate."""
    kept = [each.report for each in run.read_stored_report(gate_reports.folder_of(task))]
    reports = [report for report in kept if report.challenger.digest == digest]
    if not reports:
        return
    yield from ("", reports[-1].title, "", "| gate | | |", "|---|---|---|")
    for verdict in reports[-1].verdicts:
        yield f"| {verdict.gate} | {verdict.outcome} | {verdict.sentence.replace('|', ' ')} |"


def _metrics() -> list[str]:
    """DVC's comparison with HEAD; outside git there is nothing to compare with."""
    command = [sys.executable, "-m", "dvc", "metrics", "diff", "--md", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 and done.stdout.strip() else ["The same, or no commit yet."]


def _run_whole(*words: str) -> None:
    """Run a step that the next one needs. Raises RetrainingFailed."""
    _, status = _run(*words)
    if status:
        raise RetrainingFailed(f"`{' '.join(words[:2])}` ended with {status}; the deployed models stay as they are")


def _run(*words: str, shown: bool = True) -> tuple[str, int]:
    """Run a module as a user would: its output, which goes where ours goes or is given back, and its exit status."""
    sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", *words],
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout or "", done.returncode
