"""The state that an ID leads to: run, build, data, sources and decisions, and what could not be found."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from convoy.core import tasks
from convoy.lineage.index import BundleFolder, Index, lock_of
from convoy.release import journal
from convoy.release.decision import Decision
from convoy.tracking.build_runs import BUILD, LOCK_DIGEST
from convoy.tracking.mlflow_runs import SOURCES
from convoy.tracking.provenance import REVISION, Lock
from convoy.tracking.run_content import texts
from convoy.tracking.store import RunRecord, VersionRecord

PATCH = "source.patch"
_DVC_TAG = "convoy.dvc."
_DATA_FOLDERS = ("data/", "candidates/", "bundles/")


@dataclass(frozen=True)
class Origin:
    """One state, as far as the ID itself leads to it."""

    task: str | None
    version: VersionRecord | None = None
    run: RunRecord | None = None
    digest: str | None = None
    revision: str | None = None
    lock: Lock | None = None

    @property
    def key(self) -> object:
        """Equal for the same state."""
        version = self.version and (self.version.name, self.version.number)
        return version or (self.run.id if self.run else (self.digest, self.revision, self.task))

    @property
    def time_ms(self) -> int:
        """When the version was registered or the run began; 0 where it has neither."""
        return self.version.registered_ms if self.version else self.run.started_ms if self.run else 0


@dataclass(frozen=True)
class Match:
    """What an ID names, and the states that it leads to, the newest first."""

    kind: str
    name: str  # in full
    what: str
    origins: list[Origin] = field(default_factory=list)
    request: dict[str, Any] | None = None


def origin_of_version(version: VersionRecord) -> Origin:
    """The state that a version is."""
    return Origin(task_named(version.name), version, digest=version.digest)


def origins_of_run(run: RunRecord, index: Index) -> list[Origin]:
    """The versions of a run or of its build; the run alone where it has none."""
    versions = index.versions_of(run.id)
    if LOCK_DIGEST in run.tags and (version := index.version_with(run.tags.get("convoy.bundle_digest", ""))):
        versions = [version]
    task = task_named(run.tags.get("convoy.task", ""))
    return [origin_of_version(version) for version in versions] or [Origin(task, run=run)]


def origin_of_digest(digest: str, task: str | None, index: Index) -> Origin:
    """The version that holds a bundle, or the bundle alone."""
    version = index.version_with(digest)
    return origin_of_version(version) if version else Origin(task, digest=digest)


def newest_distinct(origins: Iterable[Origin]) -> list[Origin]:
    """Each state once, the newest first; states from dvc.lock alone only where MLflow has none."""
    unique = {origin.key: origin for origin in origins}.values()
    run_ids = {origin.version.run_id for origin in unique if origin.version}
    registered = [origin for origin in unique if origin.version or (origin.run and origin.run.id not in run_ids)]
    if registered:
        return sorted(registered, key=lambda origin: origin.time_ms, reverse=True)
    return [origin for origin in unique if origin.task] or list(unique)


def dvc_hashes(tags: dict[str, str]) -> dict[str, str]:
    """Path -> md5 without .dir, from the tags of a run or a version."""
    hashes = {name.removeprefix(_DVC_TAG): md5 for name, md5 in tags.items() if name.startswith(_DVC_TAG)}
    return {path: md5.removesuffix(".dir") for path, md5 in hashes.items()}


def task_named(name: str) -> str | None:
    """The task that a name such as `convoy-fashion` belongs to; None for a name that no task can have."""
    task = name.removeprefix("convoy-")
    return tasks.present_name(task) if tasks.NAME.fullmatch(task) else None


@dataclass
class State:
    """One bundle or training, with everything that it came from."""

    task: str | None
    version: VersionRecord | None = None
    run: RunRecord | None = None
    build: RunRecord | None = None
    digest: str | None = None
    places: list[BundleFolder] = field(default_factory=list)
    revision: str | None = None
    edits: str = "unknown"  # none, kept (in source.patch), or why they are not known
    patch: bytes | None = None
    lock: Lock | None = None
    lock_from: str = ""
    params: dict[str, str] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)  # that name its bundle, the oldest first
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """A short name: the version, else the run, the digest or the revision."""
        if self.version:
            return f"{self.task}/{self.version.number}"
        return self.run.id if self.run else self.digest or self.revision or "?"

    @property
    def data(self) -> dict[str, str]:
        """Path -> md5 of raw and prepared data, weights and bundle, as far as they are known."""
        if self.lock is not None and self.task is not None:
            return self.lock.outs_of(self.lock.to_reports(self.task), *_DATA_FOLDERS)
        tags = {**(self.run.tags if self.run else {}), **(self.version.tags if self.version else {})}
        return dvc_hashes(tags)


def state_of(origin: Origin, index: Index) -> State:
    """The state that an origin belongs to, with everything that MLflow, git and this folder have of it."""
    state = State(origin.task, origin.version, origin.run, digest=origin.digest or None, revision=origin.revision)
    if state.version:
        state.run = index.run(state.version.run_id)
        if state.run is None:
            state.missing.append(f"run {state.version.run_id}: {index.mlflow.trouble or 'MLflow has it no longer'}")
    _add_build(state, index)
    if state.digest is None and state.run is not None:
        state.digest = state.run.tags.get("convoy.bundle_digest")
    state.places = [place for place in index.places if state.digest and place.digest == state.digest]
    _add_lock(state, origin, index)
    _add_sources(state, index)
    _add_params(state)
    _add_decisions(state)
    if state.version is None and index.mlflow.trouble:
        state.missing.append(f"version and run: {index.mlflow.trouble}")
    elif state.version is None:
        state.missing.append("version: none is registered of it")
    return state


def _add_build(state: State, index: Index) -> None:
    run_ids = [tags[BUILD] for tags in _tags_of(state) if BUILD in tags]
    state.build = next((run for run in map(index.run, run_ids) if run), None)
    if state.run and LOCK_DIGEST in state.run.tags:
        state.build = state.run
    if state.build is None and state.digest:
        builds = [run for run in index.mlflow.runs.values() if LOCK_DIGEST in run.tags]
        state.build = next((run for run in builds if run.tags.get("convoy.bundle_digest") == state.digest), None)


def _tags_of(state: State) -> list[dict[str, str]]:
    return [record.tags for record in (state.build, state.version, state.run) if record is not None]


def _add_lock(state: State, origin: Origin, index: Index) -> None:
    """Add a whole dvc.lock: that beside the version, the build's of an earlier release, the one here or git's.

    Else the run's, which ends with the training.
    """
    version = state.version
    if version and (lock := lock_of(index.mlflow.artifact(version.run_id, f"{version.model}/dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of {state.name}"
        return
    if state.build and (lock := lock_of(index.mlflow.artifact(state.build.id, "dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of the build {state.build.id}"
        return
    if origin.lock is not None:
        state.lock, state.lock_from = origin.lock, f"git, {origin.revision}" if origin.revision else "here"
        return
    if state.task is None:
        return
    md5s = _identifying_hashes(state)
    if md5s and _contains(index.lock, state.task, md5s):
        state.lock, state.lock_from = index.lock, "here"
        return
    for md5 in md5s if index.git.is_there else ():
        for revision in index.git.revisions_with(md5):
            lock = index.git.lock_at(revision)
            if lock is not None and _contains(lock, state.task, [md5]):
                state.lock, state.lock_from = lock, f"git, {revision}"
                return
    if state.run and (lock := lock_of(index.mlflow.artifact(state.run.id, "dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of the run {state.run.id}, which ends with the training"
        state.missing.append("the stages after the training: no dvc.lock that names this bundle is kept")
    else:
        state.missing.append("dvc.lock: neither MLflow nor git has one that names it")


def _identifying_hashes(state: State) -> list[str]:
    """The md5s that identify this state's dvc.lock: of the bundle, else of the weights."""
    hashes = {path: md5 for tags in reversed(_tags_of(state)) for path, md5 in dvc_hashes(tags).items()}
    bundles = [md5 for path, md5 in hashes.items() if path.startswith("bundles/")]
    return bundles or [md5 for path, md5 in hashes.items() if path.startswith("candidates/") and "weights" in path]


def _contains(lock: Lock, task: str, md5s: list[str]) -> bool:
    outs = {md5.removesuffix(".dir") for md5 in lock.outs_of(lock.to_reports(task)).values()}
    return set(md5s) <= outs


def _add_sources(state: State, index: Index) -> None:
    """Add revision and patch as they were published; without a published revision, the one that dvc.lock leads to."""
    edits = next((tags[SOURCES] for tags in _tags_of(state) if SOURCES in tags), "unknown: nothing was published of it")
    state.revision = _tagged_revision(state) or state.revision or _revision_of_lock(state, index)
    state.edits = {"false": "none", "true": "kept"}.get(edits, edits)
    if edits == "true":
        places = [(run.id, PATCH) for run in (state.build, state.run) if run]
        if state.version:
            places.insert(0, (state.version.run_id, f"{state.version.model}/{PATCH}"))
        state.patch = next((patch for place in places if (patch := index.mlflow.artifact(*place))), None)
        if state.patch is None:
            state.edits = "made, and not kept"
            state.missing.append(f"{PATCH}: the tree had edits when it was published, and MLflow has no patch of them")
    if _tagged_revision(state) is None and state.revision:
        changed = index.git.changed_code(state.revision, code_of(state))
        state.edits = f"found by its dvc.lock; {'all' if not changed else 'not all'} code there is what made it"
        if changed:
            state.missing.append(f"the code that made it: {', '.join(changed[:5])} of {state.revision} is not it")
    if state.revision is None:
        state.missing.append(f"git revision: {edits}")
    elif not index.git.is_there or index.git.resolve(state.revision) is None:
        state.missing.append(f"git revision {state.revision} is not in this repository; `git fetch --all` may bring it")


def _tagged_revision(state: State) -> str | None:
    """The revision in MLflow's tags. Only a full hash is passed to git: anything else could be an option."""
    revisions = (tags["convoy.git_revision"] for tags in _tags_of(state) if "convoy.git_revision" in tags)
    return next((revision for revision in revisions if REVISION.fullmatch(revision)), None)


def _revision_of_lock(state: State, index: Index) -> str | None:
    """A revision whose dvc.lock names the bundle; first choice is one with the code that made it."""
    revisions = (
        [revision for md5 in _identifying_hashes(state) for revision in index.git.revisions_with(md5)]
        if index.git.is_there
        else []
    )
    code = code_of(state)
    return next(
        (revision for revision in revisions if not index.git.changed_code(revision, code)), next(iter(revisions), None)
    )


def _add_params(state: State) -> None:
    state.params = dict(state.run.params) if state.run and state.run is not state.build else {}
    if state.lock is not None and state.task is not None and not state.params:
        stage_params = map(state.lock.params, state.lock.to_reports(state.task))
        state.params = texts({key: value for params in stage_params for key, value in params.items()})


def _add_decisions(state: State) -> None:
    if state.task is None or state.digest is None:
        return
    try:
        decisions = journal.read(state.task)
    except (journal.DecisionsBroken, OSError) as error:
        state.missing.append(f"decisions: {error}")
        return
    state.decisions = [
        decision
        for decision in decisions
        if state.digest in (decision.after.digest, decision.before and decision.before.digest)
    ]


def code_of(state: State) -> dict[str, str]:
    """Path -> md5 of the source files that made it, as its dvc.lock names them."""
    if state.lock is None or state.task is None:
        return {}
    stages = state.lock.to_reports(state.task)
    deps = {path: md5 for name in stages for path, md5 in state.lock.deps(name).items()}
    return {path: md5 for path, md5 in deps.items() if path.startswith(("src/", "pipelines/"))}


def bundle_md5(state: State) -> str:
    """DVC's hash of the bundle; empty where dvc.lock does not have it."""
    if state.lock is None or state.task is None:
        return ""
    outs = state.lock.outs_of(state.lock.to_bundle(state.task), "bundles/")
    return outs.get(f"bundles/{state.lock.name_of(state.task)}", "")


def format_time(milliseconds: int) -> str:
    """A time of MLflow in UTC, for people."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
