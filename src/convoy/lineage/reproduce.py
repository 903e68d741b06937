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
from convoy.core import paths, stages
from convoy.core.paths import Task, architectures
from convoy.core.process import Say
from convoy.lineage import workspace
from convoy.lineage.checkout import CheckoutRefused, bring_data
from convoy.lineage.index import Index
from convoy.lineage.state import State, bundle_md5
from convoy.tracking.provenance import md5_of
from convoy.tracking.run_content import training_file

# What is there, in the cache or in git, is no proof: everything is made anew, and nothing of it goes into the cache.
_REPRO = ("repro", "--force", "--no-run-cache", "--single-item", "--no-commit")


@dataclass(frozen=True)
class Comparison:
    """A file as it was and as it was built anew; a hash is empty where there is no such file."""

    path: str
    before: str
    now: str

    @property
    def same(self) -> bool:
        """Whether the rebuilt file is the same, to the bit."""
        return self.before == self.now


def rebuild(state: State, folder: Path, world: Index, say: Say) -> list[Comparison]:
    """Run the stages up to the bundle anew in `folder`, and compare. Raises CheckoutRefused where that fails."""
    task = state.task
    if task is None or state.lock is None or not bundle_md5(state):
        why = "; ".join(state.missing) or "no dvc.lock that names a bundle is known of it"
        raise CheckoutRefused(f"{state.name} cannot be rebuilt and compared: {why}")
    wanted = stages.up_to_bundle(task)
    if bring_data(state, folder, wanted[:1]):
        say(f"the raw data is not in DVC's cache: {wanted[0]} runs too")
    else:
        wanted = wanted[1:]
    before = _surroundings(state, world)
    say(f"{state.name} is rebuilt: {', '.join(wanted)}")
    _run(wanted, folder, before.get("threads"))
    for name, was, now in _changed_surroundings(task, folder, before):
        say(f"{name} was {was} and is {now} now: weights may differ by that alone")
    return [*_outs(state, folder), *_bundle(state, folder, world)]


def table(found: list[Comparison]) -> Iterator[str]:
    """A line for each file."""
    width = max(len(each.path) for each in found)
    for each in found:
        verdict = "the same" if each.same else f"differs: {each.now[:12] or 'not there'}"
        yield f"  {each.path:<{width}}  {each.before[:12] or 'not there':<12}  {verdict}"
    differ = sum(not each.same for each in found)
    yield f"{len(found)} files: " + (f"{differ} differ" if differ else "all have the same hashes")


def _run(wanted: list[str], folder: Path, threads: Any) -> None:
    """Run stages in this order, with as many threads as then: sums depend on it. What they say goes to stderr."""
    environment = {**workspace.environment(folder), "CONVOY_FOLLOW": "0"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *_REPRO, *wanted], cwd=folder, env=environment, stdout=2, check=False
    )
    if done.returncode:
        raise CheckoutRefused(
            f"`dvc repro` failed in {folder}, as the lines above say; with --checkout FOLDER the folder stays"
        )


def _surroundings(state: State, world: Index) -> dict[str, Any]:
    """What the trainings ran with, as the build's reports have it; nothing where they are not kept."""
    assert state.task is not None
    for architecture in architectures(state.task) if state.build else ():
        assert state.build is not None
        content = world.known.artifact(state.build.id, str(training_file(state.task, architecture)))
        if content:
            return dict(json.loads(content))
    return {}


def _changed_surroundings(task: Task, folder: Path, before: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    now = json.loads((folder / training_file(task, architectures(task)[0])).read_bytes())
    for name, was in before.items():
        if name != "fingerprint" and now.get(name) != was:
            yield name, was, now.get(name)


def _outs(state: State, folder: Path) -> Iterator[Comparison]:
    """Prepared data and weights, by DVC's md5."""
    assert state.task is not None and state.lock is not None
    trained = [stages.train(state.task, architecture) for architecture in architectures(state.task)]
    for name in (stages.prepare(state.task), *trained):
        for path, md5 in state.lock.outs(name).items():
            if path.startswith(("data/", "candidates/")):
                found = folder / path
                yield Comparison(path, md5, md5_of(found) if found.exists() else "")


def _bundle(state: State, folder: Path, world: Index) -> Iterator[Comparison]:
    """Every file of the bundle by its sha256; the bundle as a whole where its manifest is nowhere any more."""
    assert state.task is not None
    built = folder / paths.bundle(state.task)
    before, now = _manifest(state, world), json.loads((built / MANIFEST).read_bytes())
    if before is None:
        yield Comparison(str(paths.bundle(state.task)), bundle_md5(state), md5_of(built))
        return
    for name in sorted({*before, *now}):
        hashes = [content.get(name, {}).get("sha256", "") for content in (before, now)]
        yield Comparison(f"{paths.bundle(state.task)}/{name}", *hashes)


def _manifest(state: State, world: Index) -> dict[str, Any] | None:
    """The manifest of the bundle as it was, proven by its digest."""
    contents = [(place.folder / MANIFEST).read_bytes() for place in state.places]
    version = state.version
    if version and (kept := world.known.artifact(version.run_id, f"{version.bundle}/{MANIFEST}")):
        contents.append(kept)
    whole = [content for content in contents if hashlib.sha256(content).hexdigest() == state.digest]
    return dict(json.loads(whole[0])) if whole else None
