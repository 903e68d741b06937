"""A state in a worktree -> rebuilt from its raw data there, and each file that should be the same, with its hashes."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoy.bundles.bundle import MANIFEST
from convoy.core.process import Say
from convoy.lineage import workspace
from convoy.lineage.checkout import CheckoutRefused, bring_data
from convoy.lineage.index import Index
from convoy.lineage.state import State, bundle_md5
from convoy.tracking.provenance import md5_of

# What the cache or git holds is no proof: all stages run again, and nothing of it goes into the cache.
_REPRO_ARGUMENTS = ("repro", "--force", "--no-run-cache", "--single-item", "--no-commit")


@dataclass(frozen=True)
class Comparison:
    """A file as it was and as it was built again; a hash is empty where there is no such file."""

    path: str
    before: str
    now: str

    @property
    def same(self) -> bool:
        """Whether the rebuilt file is the same, to the bit."""
        return self.before == self.now


def rebuild(state: State, folder: Path, index: Index, say: Say) -> list[Comparison]:
    """Run the stages up to the bundle again in `folder`, and compare. Raises CheckoutRefused where that fails."""
    task = state.task
    if task is None or state.lock is None or not bundle_md5(state):
        reason = "; ".join(state.missing) or "no dvc.lock that names a bundle is known of it"
        raise CheckoutRefused(f"{state.name} cannot be rebuilt and compared: {reason}")
    names = state.lock.to_bundle(task)
    raw = [name for name in names if state.lock.outs_of([name], "data/raw/")]
    if bring_data(state, folder, raw):
        say(f"the raw data is not in DVC's cache: {', '.join(raw)} runs too")
    else:
        names = [name for name in names if name not in raw]
    before = _training_environment(state, index)
    say(f"{state.name} is rebuilt: {', '.join(names)}")
    _run_stages(names, folder, before.get("threads"))
    for name, was, now in _changed_environment(state, folder, before):
        say(f"{name} was {was} and is {now} now: weights may differ by that alone")
    return [*_compare_outs(state, folder), *_compare_bundle(state, folder, index)]


def format_table(comparisons: list[Comparison]) -> Iterator[str]:
    """A line for each file."""
    width = max(len(comparison.path) for comparison in comparisons)
    for comparison in comparisons:
        verdict = "the same" if comparison.same else f"differs: {comparison.now[:12] or 'not there'}"
        yield f"  {comparison.path:<{width}}  {comparison.before[:12] or 'not there':<12}  {verdict}"
    differing = sum(not comparison.same for comparison in comparisons)
    yield f"{len(comparisons)} files: " + (f"{differing} differ" if differing else "all have the same hashes")


def _run_stages(names: list[str], folder: Path, threads: Any) -> None:
    """Run stages in this order with the original number of threads: sums depend on it. Their output goes to stderr."""
    environment = {**workspace.environment(folder), "CONVOY_FOLLOW": "0"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *_REPRO_ARGUMENTS, *names], cwd=folder, env=environment, stdout=2, check=False
    )
    if process.returncode:
        raise CheckoutRefused(
            f"`dvc repro` failed in {folder}, as the lines above say; with --checkout FOLDER the folder stays"
        )


def _training_environment(state: State, index: Index) -> dict[str, Any]:
    """The environment of the trainings, from the build's reports; empty where they are not kept."""
    for path in _training_files(state) if state.build else ():
        assert state.build is not None
        content = index.mlflow.artifact(state.build.id, path)
        if content:
            return _environment_in(content)
    return {}


def _training_files(state: State) -> list[str]:
    """The reports that say where a candidate was trained: metrics.json, in older states training.json."""
    assert state.task is not None and state.lock is not None
    outs = list(state.lock.outs_of(state.lock.to_bundle(state.task), "reports/"))
    return [path for name in ("training.json", "metrics.json") for path in outs if path.endswith(f"/{name}")]


def _environment_in(content: bytes) -> dict[str, Any]:
    report = json.loads(content)
    return dict(report.get("training", report))


def _changed_environment(state: State, folder: Path, before: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    now = _environment_in((folder / _training_files(state)[0]).read_bytes())
    for name, was in before.items():
        if name != "fingerprint" and now.get(name) != was:
            yield name, was, now.get(name)


def _compare_outs(state: State, folder: Path) -> Iterator[Comparison]:
    """Prepared data and weights, by DVC's md5."""
    assert state.task is not None and state.lock is not None
    outs = state.lock.outs_of(state.lock.to_bundle(state.task), "data/prepared/", "candidates/")
    for path, md5 in outs.items():
        file = folder / path
        yield Comparison(path, md5, md5_of(file) if file.exists() else "")


def _compare_bundle(state: State, folder: Path, index: Index) -> Iterator[Comparison]:
    """Every file of the bundle by its sha256; the whole bundle by its md5 where the old manifest is lost."""
    assert state.task is not None
    assert state.lock is not None
    bundle = f"bundles/{state.lock.name_of(state.task)}"
    built = folder / bundle
    before, now = _original_manifest(state, index), json.loads((built / MANIFEST).read_bytes())
    if before is None:
        yield Comparison(bundle, bundle_md5(state), md5_of(built))
        return
    for name in sorted({*before, *now}):
        hashes = [content.get(name, {}).get("sha256", "") for content in (before, now)]
        yield Comparison(f"{bundle}/{name}", *hashes)


def _original_manifest(state: State, index: Index) -> dict[str, Any] | None:
    """The manifest of the original bundle, proven by its digest; None where nothing keeps it."""
    contents = [(place.folder / MANIFEST).read_bytes() for place in state.places]
    version = state.version
    if version and (stored := index.mlflow.artifact(version.run_id, f"{version.bundle}/{MANIFEST}")):
        contents.append(stored)
    proven = [content for content in contents if hashlib.sha256(content).hexdigest() == state.digest]
    return dict(json.loads(proven[0])) if proven else None
