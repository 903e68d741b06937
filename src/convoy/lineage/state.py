"""What an ID leads to -> its state: run, build, data, sources and decisions, and what could not be found."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from convoy.core import paths, stages
from convoy.core.paths import TASKS, Task
from convoy.lineage.index import BundleFolder, Index, lock_of
from convoy.release import journal
from convoy.release.decision import Decision
from convoy.tracking.build_runs import BUILD, LOCK_DIGEST
from convoy.tracking.mlflow_runs import SOURCES
from convoy.tracking.provenance import REVISION, Lock
from convoy.tracking.run_content import texts
from convoy.tracking.store import RunRecord, VersionRecord

_DVC = "convoy.dvc."

PATCH = "source.patch"
_DATA = ("data/", "candidates/", "bundles/")


@dataclass(frozen=True)
class Origin:
    """One state to begin from: as much of it as the ID itself leads to."""

    task: Task | None
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
        """When it was registered, or began; 0 where nobody knows."""
        return self.version.registered_ms if self.version else self.run.started_ms if self.run else 0


@dataclass(frozen=True)
class Match:
    """What an ID names, and the states that it leads to, the newest first."""

    kind: str
    name: str  # in full
    what: str
    points: list[Origin] = field(default_factory=list)
    request: dict[str, Any] | None = None


def origin_of_version(version: VersionRecord) -> Origin:
    """The state that a version is."""
    return Origin(task_named(version.name), version, digest=version.digest)


def origins_of_run(run: RunRecord, world: Index) -> list[Origin]:
    """The versions that a run has given, or that its build holds; the run alone where it gave none."""
    versions = world.versions_of(run.id)
    if LOCK_DIGEST in run.tags and (version := world.version_with(run.tags.get("convoy.bundle_digest", ""))):
        versions = [version]
    task = task_named(run.tags.get("convoy.task", ""))
    return [origin_of_version(version) for version in versions] or [Origin(task, run=run)]


def origin_of_digest(digest: str, task: Task | None, world: Index) -> Origin:
    """The version that holds a bundle, or the bundle alone."""
    version = world.version_with(digest)
    return origin_of_version(version) if version else Origin(task, digest=digest)


def distinct(points: Iterable[Origin]) -> list[Origin]:
    """Each state once, the newest first; what dvc.lock alone says only where MLflow knows nothing."""
    once = {point.key: point for point in points}.values()
    given = {point.version.run_id for point in once if point.version}
    named = [point for point in once if point.version or (point.run and point.run.id not in given)]
    if named:
        return sorted(named, key=lambda point: point.time_ms, reverse=True)
    return [point for point in once if point.task] or list(once)


def dvc_hashes(tags: dict[str, str]) -> dict[str, str]:
    """Path -> md5, without .dir, of what the tags of a run or a version say."""
    found = {name.removeprefix(_DVC): md5 for name, md5 in tags.items() if name.startswith(_DVC)}
    return {path: md5.removesuffix(".dir") for path, md5 in found.items()}


def task_named(name: str) -> Task | None:
    """The task that a name such as `convoy-image` belongs to."""
    return next((task for task in TASKS if name.removeprefix("convoy-") == task), None)


@dataclass
class State:
    """One bundle or training, with everything that it came from."""

    task: Task | None
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
        """Something short to call it by."""
        if self.version:
            return f"{self.task}/{self.version.number}"
        return self.run.id if self.run else self.digest or self.revision or "?"

    @property
    def data(self) -> dict[str, str]:
        """Path -> md5 of raw and prepared data, weights and bundle, as far as they are known."""
        if self.lock is not None and self.task is not None:
            found = {path: md5 for name in stages.of_reports(self.task) for path, md5 in self.lock.outs(name).items()}
            return {path: md5 for path, md5 in found.items() if path.startswith(_DATA)}
        tags = {**(self.run.tags if self.run else {}), **(self.version.tags if self.version else {})}
        return dvc_hashes(tags)


def state_of(point: Origin, world: Index) -> State:
    """Everything that is known of the state that a point belongs to."""
    state = State(point.task, point.version, point.run, digest=point.digest or None, revision=point.revision)
    if state.version:
        state.run = world.run(state.version.run_id)
        if state.run is None:
            state.missing.append(f"run {state.version.run_id}: {world.known.trouble or 'MLflow has it no longer'}")
    _add_build(state, world)
    if state.digest is None and state.run is not None:
        state.digest = state.run.tags.get("convoy.bundle_digest")
    state.places = [place for place in world.places if state.digest and place.digest == state.digest]
    _add_lock(state, point, world)
    _add_sources(state, world)
    _add_params(state)
    _add_decisions(state)
    if state.version is None and world.known.trouble:
        state.missing.append(f"version and run: {world.known.trouble}")
    elif state.version is None:
        state.missing.append("version: none is registered of it")
    return state


def _add_build(state: State, world: Index) -> None:
    named = [tags[BUILD] for tags in _tags(state) if BUILD in tags]
    state.build = next((run for run in map(world.run, named) if run), None)
    if state.run and LOCK_DIGEST in state.run.tags:
        state.build = state.run
    if state.build is None and state.digest:
        builds = [run for run in world.known.runs.values() if LOCK_DIGEST in run.tags]
        state.build = next((run for run in builds if run.tags.get("convoy.bundle_digest") == state.digest), None)


def _tags(state: State) -> list[dict[str, str]]:
    return [each.tags for each in (state.build, state.version, state.run) if each is not None]


def _add_lock(state: State, point: Origin, world: Index) -> None:
    """dvc.lock from where it is whole: the build's, the one here, git's; else the run's, which ends with training."""
    if state.build and (lock := lock_of(world.known.artifact(state.build.id, "dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of the build {state.build.id}"
        return
    if point.lock is not None:
        state.lock, state.lock_from = point.lock, f"git, {point.revision}" if point.revision else "here"
        return
    if state.task is None:
        return
    wanted = _made_by(state)
    if wanted and _holds(world.lock, state.task, wanted):
        state.lock, state.lock_from = world.lock, "here"
        return
    for md5 in wanted if world.git.is_there else ():
        for revision in world.git.revisions_with(md5):
            lock = world.git.lock_at(revision)
            if lock is not None and _holds(lock, state.task, [md5]):
                state.lock, state.lock_from = lock, f"git, {revision}"
                return
    if state.run and (lock := lock_of(world.known.artifact(state.run.id, "dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of the run {state.run.id}, which ends with the training"
        state.missing.append("the stages after the training: no dvc.lock that names this bundle is kept")
    else:
        state.missing.append("dvc.lock: neither MLflow nor git has one that names it")


def _made_by(state: State) -> list[str]:
    """The md5s that tell this state's dvc.lock from others: of the bundle, or of the weights."""
    hashes = {path: md5 for tags in reversed(_tags(state)) for path, md5 in dvc_hashes(tags).items()}
    bundles = [md5 for path, md5 in hashes.items() if path.startswith("bundles/")]
    return bundles or [md5 for path, md5 in hashes.items() if path.startswith("candidates/") and "weights" in path]


def _holds(lock: Lock, task: Task, md5s: list[str]) -> bool:
    made = {md5.removesuffix(".dir") for name in stages.of_reports(task) for md5 in lock.outs(name).values()}
    return set(md5s) <= made


def _claimed(state: State) -> str | None:
    """The revision that MLflow's tags name. What is not a full hash never reaches git: it could be an option."""
    named = (tags["convoy.git_revision"] for tags in _tags(state) if "convoy.git_revision" in tags)
    return next((revision for revision in named if REVISION.fullmatch(revision)), None)


def _add_sources(state: State, world: Index) -> None:
    """Revision and patch as they were published; where the code had changed by then, what dvc.lock leads to."""
    said = next((tags[SOURCES] for tags in _tags(state) if SOURCES in tags), "unknown: nothing was published of it")
    state.revision = _claimed(state) or state.revision or _revision_of_lock(state, world)
    state.edits = {"false": "none", "true": "kept"}.get(said, said)
    if said == "true":
        holders = [each.id for each in (state.build, state.run) if each]
        state.patch = next((patch for run in holders if (patch := world.known.artifact(run, PATCH))), None)
        if state.patch is None:
            state.edits = "made, and not kept"
            state.missing.append(f"{PATCH}: the tree had edits when it was published, and MLflow has no patch of them")
    if _claimed(state) is None and state.revision:
        other = world.git.other_code(state.revision, code_of(state))
        state.edits = f"found by its dvc.lock; {'all' if not other else 'not all'} code there is what made it"
        if other:
            state.missing.append(f"the code that made it: {', '.join(other[:5])} of {state.revision} is not it")
    if state.revision is None:
        state.missing.append(f"git revision: {said}")
    elif not world.git.is_there or world.git.resolve(state.revision) is None:
        state.missing.append(f"git revision {state.revision} is not in this repository; `git fetch --all` may bring it")


def _revision_of_lock(state: State, world: Index) -> str | None:
    """A revision whose dvc.lock names the bundle, one with the code that made it before others."""
    found = [each for md5 in _made_by(state) for each in world.git.revisions_with(md5)] if world.git.is_there else []
    code = code_of(state)
    return next((each for each in found if not world.git.other_code(each, code)), next(iter(found), None))


def code_of(state: State) -> dict[str, str]:
    """Path -> md5 of the source files that made it, as its dvc.lock names them."""
    if state.lock is None or state.task is None:
        return {}
    read = {path: md5 for name in stages.of_reports(state.task) for path, md5 in state.lock.deps(name).items()}
    return {path: md5 for path, md5 in read.items() if path.startswith(("src/", "pipelines/"))}


def _add_params(state: State) -> None:
    state.params = dict(state.run.params) if state.run and state.run is not state.build else {}
    if state.lock is not None and state.task is not None and not state.params:
        of_stages = map(state.lock.params, stages.of_reports(state.task))
        state.params = texts({key: each for sections in of_stages for key, each in sections.items()})


def _add_decisions(state: State) -> None:
    if state.task is None or state.digest is None:
        return
    try:
        told = journal.read(state.task)
    except (journal.DecisionsBroken, OSError) as error:
        state.missing.append(f"decisions: {error}")
        return
    state.decisions = [each for each in told if state.digest in (each.after.digest, each.before and each.before.digest)]


def bundle_md5(state: State) -> str:
    """DVC's hash of the bundle; empty where dvc.lock does not have it."""
    if state.lock is None or state.task is None:
        return ""
    return state.lock.outs(stages.export(state.task)).get(str(paths.bundle(state.task)), "")


def format_time(milliseconds: int) -> str:
    """A time of MLflow's as people read it."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
