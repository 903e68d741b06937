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
from convoy.lineage.checkout import CheckoutRefused, bring_data, say_what_differs
from convoy.lineage.index import Index
from convoy.lineage.state import State
from convoy.tracking.provenance import LOCK, Lock, md5_of

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
    if state.task is None or state.lock is None or not state.bundle_md5:
        reason = "; ".join(state.missing) or "no dvc.lock that names a bundle is known of it"
        raise CheckoutRefused(f"{state.name} cannot be rebuilt and compared: {reason}")
    names = state.lock.to_bundle(state.task)
    raw = [name for name in names if state.lock.outs_of([name], "data/raw/")]
    if bring_data(state, folder, raw):
        say(f"the raw data is not in DVC's cache: {', '.join(raw)} runs too")
    else:
        names = [name for name in names if name not in raw]
    outs = state.lock.outs_of(names)
    # The reports that say where a candidate was trained: metrics.json, in older states training.json.
    told = [path for name in ("training.json", "metrics.json") for path in outs if path.endswith(f"/{name}")]
    before = _training_environment(index.mlflow.artifact(state.build.id, told[0]) if state.build and told else None)
    say_what_differs(state, folder, say)
    say(f"{state.name} is rebuilt: {', '.join(names)}")
    _run_stages(names, folder, before.get("threads"))
    now = _training_environment((folder / told[0]).read_bytes()) if before else {}
    for name in before:
        if name != "fingerprint" and now.get(name) != before[name]:
            say(f"{name} was {before[name]} and is {now.get(name)} now: weights may differ by that alone")
    return [*_compare_outs(outs, folder, names), *_compare_bundle(state, folder, index)]


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


def _training_environment(report: bytes | None) -> dict[str, Any]:
    """The environment of a training, from its report; empty where that is not kept."""
    content = json.loads(report) if report else {}
    return dict(content.get("training", content))


def _compare_outs(outs: dict[str, str], folder: Path, names: list[str]) -> Iterator[Comparison]:
    """Prepared data and weights, by DVC's md5."""
    now = Lock.read(folder / LOCK).outs_of(names)
    for path, md5 in outs.items():
        if path.startswith(("data/", "candidates/")):
            yield Comparison(path, md5, now.get(path, ""))


def _compare_bundle(state: State, folder: Path, index: Index) -> Iterator[Comparison]:
    """Every file of the bundle by its sha256; the whole bundle by its md5 where the old manifest is lost."""
    assert state.lock is not None and state.task is not None
    bundle = f"bundles/{state.lock.name_of(state.task)}"
    before, now = _original_manifest(state, index), json.loads((folder / bundle / MANIFEST).read_bytes())
    if before is None:
        yield Comparison(bundle, state.bundle_md5, md5_of(folder / bundle))
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
