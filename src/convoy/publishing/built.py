"""What the pipeline has built for a task, as dvc.lock and the reports have it, and what it has not."""

from dataclasses import dataclass
from pathlib import Path

from convoy import layout
from convoy.layout import ARCHITECTURES, Architecture, Task
from convoy.publishing.provenance import Lock
from convoy.publishing.run_content import PREPARE, RunContent, numbers, read_json, read_run, split_of, stage


@dataclass(frozen=True)
class Winner:
    """The bundle that was built for a task and the candidate it holds."""

    architecture: Architecture
    folder: Path
    validation: dict[str, float]
    validation_data: str  # md5 of the prepared data it was validated on


@dataclass(frozen=True)
class Built:
    """What the pipeline has built for one task, and what it has not."""

    task: Task
    runs: dict[Architecture, RunContent]
    winner: Winner | None
    missing: list[str]


def read_built(task: Task, lock: Lock) -> Built:
    """Read what is there for `task`; what is absent or older than its inputs is named, not guessed."""
    missing: list[str] = []
    evaluated = _is_current(lock, stage("evaluate", task), missing)
    winner = _winner(task, lock, missing)
    runs = {}
    for architecture in ARCHITECTURES:
        if _is_current(lock, stage("train", task, architecture), missing):
            is_winner = winner is not None and winner.architecture == architecture
            runs[architecture] = read_run(task, architecture, lock, evaluated, is_winner, missing)
    return Built(task, runs, winner, missing)


def _is_current(lock: Lock, name: str, missing: list[str]) -> bool:
    if name not in lock.stages:
        missing.append(f"stage {name} has not run")
        return False
    if outdated := lock.outdated(name):
        missing.append(f"stage {name} is older than {', '.join(outdated)}")
        return False
    return True


def _winner(task: Task, lock: Lock, missing: list[str]) -> Winner | None:
    current = [_is_current(lock, stage(name, task), missing) for name in ("choose", "export")]
    if not all(current):
        return None
    architecture = (read_json(layout.choice(task)) or {}).get("architecture")
    if architecture not in ARCHITECTURES or not (layout.bundle(task) / "manifest.json").exists():
        missing.append(f"{layout.choice(task)} or {layout.bundle(task)} is not there (`dvc checkout` brings it back)")
        return None
    report = read_json(layout.reports(task) / architecture / "metrics.json") or {}
    data = {**lock.deps(stage("train", task, architecture)), **lock.outs(PREPARE[task])}
    digests = [md5 for path, md5 in sorted(data.items()) if split_of(path) == "validation"]
    return Winner(
        architecture,
        layout.bundle(task),
        numbers(report.get("validation", {}), ""),
        digests[0] if digests else "",
    )
