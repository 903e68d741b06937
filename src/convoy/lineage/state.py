"""A bundle or a training with all that it came from: run, build, data, sources, decisions; and what is not known."""

from dataclasses import dataclass, field

from convoy.core import tasks
from convoy.lineage.index import BundleFolder, GitRefused, Index, git, lock_of
from convoy.release import journal
from convoy.release.decision import Decision
from convoy.tracking.build_runs import BUILD, LOCK_DIGEST
from convoy.tracking.mlflow_runs import SOURCES
from convoy.tracking.provenance import REVISION, Lock, same_file
from convoy.tracking.run_content import texts
from convoy.tracking.store import RunRecord, VersionRecord

PATCH = "source.patch"
RECIPE = "docs/lifecycle.md, section 'From a hash to its commit', leads on from there by `git log -S`"
_DVC_TAG = "convoy.dvc."
_DATA_FOLDERS = ("data/", "candidates/", "bundles/")


@dataclass
class State:
    """One bundle or training. An ID gives the first four fields, as far as it leads there; `complete` adds the rest."""

    task: str | None
    version: VersionRecord | None = None
    run: RunRecord | None = None
    digest: str | None = None
    build: RunRecord | None = None
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
            return self.lock.outs_of(self.stages, *_DATA_FOLDERS)
        return _dvc_hashes(self)

    @property
    def stages(self) -> list[str]:
        """The stages that its bundle and its reports come from, as its dvc.lock names them."""
        return self.lock.to_reports(self.task) if self.lock and self.task else []

    @property
    def bundle_md5(self) -> str:
        """DVC's hash of the bundle; empty where dvc.lock does not have it."""
        return _bundle_md5(self.lock, self.task) if self.lock and self.task else ""


def task_named(name: str) -> str | None:
    """The task that a name such as `convoy-fashion` belongs to; None for a name that no task can have."""
    task = name.removeprefix("convoy-")
    return tasks.present_name(task) if tasks.NAME.fullmatch(task) else None


def complete(state: State, index: Index) -> State:
    """Add everything that MLflow, dvc.lock and this folder have of a state, and what they lack."""
    trouble = index.mlflow.trouble
    if state.version:
        state.run = index.run(state.version.run_id)
        if state.run is None:
            state.missing.append(f"run {state.version.run_id}: {trouble or 'MLflow has it no longer'}")
    state.build = _build_of(state, index)
    if state.digest is None and state.run is not None:
        state.digest = state.run.tags.get("convoy.bundle_digest")
    state.places = [place for place in index.places if state.digest and place.digest == state.digest]
    _add_lock(state, index)
    _add_sources(state, index)
    _add_params(state)
    _add_decisions(state)
    if state.version is None:
        state.missing.append(f"version and run: {trouble}" if trouble else "version: none is registered of it")
    return state


def _build_of(state: State, index: Index) -> RunRecord | None:
    """The run of the build that made it: the run itself, the one that tags name, or the first with its bundle."""
    if state.run and LOCK_DIGEST in state.run.tags:
        return state.run
    named = [index.run(tags[BUILD]) for tags in _tags_of(state) if BUILD in tags]
    builds = [run for run in index.mlflow.runs.values() if LOCK_DIGEST in run.tags]
    with_bundle = [run for run in builds if state.digest and run.tags.get("convoy.bundle_digest") == state.digest]
    return next((run for run in [*named, *with_bundle] if run), None)


def _tags_of(state: State) -> list[dict[str, str]]:
    return [record.tags for record in (state.build, state.version, state.run) if record is not None]


def _dvc_hashes(state: State) -> dict[str, str]:
    """Path -> md5 without .dir, from the tags that MLflow has."""
    tags = {name: value for tags in reversed(_tags_of(state)) for name, value in tags.items()}
    hashes = {name.removeprefix(_DVC_TAG): md5 for name, md5 in tags.items() if name.startswith(_DVC_TAG)}
    return {path: md5.removesuffix(".dir") for path, md5 in hashes.items()}


def _bundle_md5(lock: Lock, task: str) -> str:
    return lock.outs_of(lock.to_bundle(task), "bundles/").get(f"bundles/{lock.name_of(task)}", "")


def _add_lock(state: State, index: Index) -> None:
    """Add a whole dvc.lock: that beside the version, the build's of an earlier release, or the one here.

    Else the run's, which ends with the training.
    """
    version = state.version
    if version and (lock := lock_of(index.mlflow.artifact(version.run_id, f"{version.model}/dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of {state.name}"
        return
    if state.build and (lock := lock_of(index.mlflow.artifact(state.build.id, "dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of the build {state.build.id}"
    elif state.task and _names_bundle(index.lock, state):
        state.lock, state.lock_from = index.lock, "here"
    elif state.run and (lock := lock_of(index.mlflow.artifact(state.run.id, "dvc.lock"))):
        state.lock, state.lock_from = lock, f"artifact of the run {state.run.id}, which ends with the training"
        state.missing.append("the stages after the training: no dvc.lock that names this bundle is kept")
    else:
        state.missing.append(f"dvc.lock: neither MLflow nor this folder has one that names it; {RECIPE}")


def _names_bundle(lock: Lock, state: State) -> bool:
    """Whether a dvc.lock names the bundle, by its hash in MLflow or by the bundle that lies here."""
    md5 = _bundle_md5(lock, state.task or "")
    recorded = [known for path, known in _dvc_hashes(state).items() if path.startswith("bundles/")]
    return bool(md5) and (
        md5.removesuffix(".dir") in recorded or any(same_file(place.folder, md5) for place in state.places)
    )


def _add_sources(state: State, index: Index) -> None:
    """Add revision and edits as they were published."""
    edits = next((tags[SOURCES] for tags in _tags_of(state) if SOURCES in tags), "unknown: nothing was published of it")
    state.revision = _tagged_revision(state)
    state.edits = {"false": "none", "true": "kept"}.get(edits, edits)
    if edits == "true":
        places = [(run.id, PATCH) for run in (state.build, state.run) if run]
        if state.version:
            places.insert(0, (state.version.run_id, f"{state.version.model}/{PATCH}"))
        state.patch = next((patch for place in places if (patch := index.mlflow.artifact(*place))), None)
        if state.patch is None:
            state.edits = "made, and not kept"
            state.missing.append(f"{PATCH}: the tree had edits when it was published, and MLflow has no patch of them")
    if state.revision is None:
        state.missing.append(f"git revision: {edits}; {RECIPE}")
        return
    try:
        git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{state.revision}^{{commit}}")
    except GitRefused:
        state.missing.append(f"git revision {state.revision} is not in this repository; `git fetch --all` may bring it")


def _tagged_revision(state: State) -> str | None:
    """The revision in MLflow's tags. Only a full hash is passed to git: anything else could be an option."""
    revisions = (tags["convoy.git_revision"] for tags in _tags_of(state) if "convoy.git_revision" in tags)
    return next((revision for revision in revisions if REVISION.fullmatch(revision)), None)


def _add_params(state: State) -> None:
    state.params = dict(state.run.params) if state.run and state.run is not state.build else {}
    if state.lock is not None and not state.params:
        stage_params = map(state.lock.params, state.stages)
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
