"""What the pipeline built -> MLflow, and deployed/ where no gate objects; a second run changes nothing."""

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from convoy.bundles.bundle import BundleInvalid, digest_of
from convoy.core import tasks as entries
from convoy.core.params import ParamsInvalid
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.release import deployment, gate_reports, journal, promote, registry_sync
from convoy.release.decision import ApprovalRefused, Grounds, Model
from convoy.release.gate_reports import Judgement
from convoy.tracking import (
    build_runs,
    build_state,
    live_runs,
    mlflow_runs,
    provenance,
    registration,
    registry,
    settings,
)
from convoy.tracking.artifacts import ArtifactRefused, StoreMoved
from convoy.tracking.build_runs import Build
from convoy.tracking.build_state import BuildState
from convoy.tracking.checked_bundle import CheckedBundle
from convoy.tracking.provenance import Lock
from convoy.tracking.run_content import RunContent


class FormerNameInUse(RuntimeError):
    """A task whose model and history still have its former name, so that nothing could be judged beside them."""


# Errors that a person can resolve; any other is a fault of Convoy's, whose traceback is printed.
_EXPECTED_ERRORS = (
    ApprovalRefused,
    ArtifactRefused,
    BundleInvalid,
    FormerNameInUse,
    journal.DecisionsBroken,
    MlflowException,
    OSError,
    ParamsInvalid,
    registry.VersionUnknown,
)


class PublishFailed(RuntimeError):
    """Some tasks could not be published; the message names each with the reason."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"{task} was not published: {reason}" for task, reason in reasons.items()))


def publish(client: MlflowClient, say: Say, tasks: Sequence[str] = ()) -> None:
    """Bring MLflow and deployed/ to what dvc.lock says was built, and say in plain words what changed.

    Without `tasks` all of params.yaml are published, and MLflow learns which others were withdrawn.
    The caller holds locks.hold_deployed(), so that nothing is made twice. Raises PublishFailed once all other tasks
    are published, and at once an error that concerns them all: LockInvalid, GitFailed, StoreMoved, SQLAlchemyError.
    """
    lock, git = Lock.read().without_leftovers(entries.read().stages), provenance.read_git_state()
    given, tasks = tasks, tasks or list(entries.read().tasks)
    for name in live_runs.close_orphaned_runs(client):
        say(f"run {name}: its process is no longer there, it is marked KILLED")
    failed: dict[str, str] = {}
    for task in tasks:
        say(f"{task}:")
        _attempt(task, partial(_publish_task, client, task, lock, git, say), failed, say)
    for task in [] if given else sorted({*entries.with_history()} - {*tasks}):
        _attempt(task, partial(_record_withdrawal, client, task), failed, say)
    if failed:
        raise PublishFailed(failed)


def _publish_task(client: MlflowClient, task: str, lock: Lock, git: provenance.GitState | None, say: Say) -> None:
    _refuse_former_name(client, task)
    journal.read_history(task)  # a broken one is told before anything changes
    state = build_state.read_build_state(task, lock)
    _Publication(client, task, state, git, lambda line: say(f"  {line}")).run()


def _refuse_former_name(client: MlflowClient, task: str) -> None:
    for former in entries.names_of(task)[1:]:
        if os.path.lexists(DEPLOYED / former) or registry.has_model(client, registry.model_name(former)):
            raise FormerNameInUse(f"`{task}` was called `{former}`; run `python -m convoy migrate` first")


def _record_withdrawal(client: MlflowClient, task: str) -> None:
    """Tell MLflow of a withdrawal, also what a kill has left out; without the alias no machine pulls the task."""
    if not journal.read_history(task).is_withdrawn:
        return
    if registry.version_with(client, task, "champion") is not None or registry_sync.lacks_last_line(client, task):
        registry_sync.update_mlflow(client, task)


def _attempt(task: str, work: Callable[[], None], failed: dict[str, str], say: Say) -> None:
    """Do it; an error of any kind is kept and told, so that the other tasks are published all the same."""
    try:
        work()
    except (SQLAlchemyError, StoreMoved):
        raise
    except Exception as error:
        failed[task] = _failure_reason(error)
        say(f"  not published: {failed[task]}")


def _failure_reason(error: Exception) -> str:
    if isinstance(error, MlflowException):
        return f"MLflow ({settings.tracking_uri()}) refuses: {error.message}"
    if isinstance(error, _EXPECTED_ERRORS):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


class _Publication:
    """One task, from the build to the deployed model."""

    def __init__(
        self, client: MlflowClient, task: str, state: BuildState, git: provenance.GitState | None, say: Say
    ) -> None:
        self.client, self.task, self.state, self.git, self.say = client, task, state, git, say
        self.experiment = mlflow_runs.experiment_of(client, task)

    @property
    def unproven(self) -> list[str]:
        """The trainings that are not published; reports alone, which are in git, may be another machine's."""
        absent = [name for name in self.state.candidates if name not in self.state.runs]
        return absent if self.state.baselines else [*absent, "the baselines"]

    def run(self) -> None:
        if self.state.missing:
            remedy = "`dvc repro` makes what is missing, `dvc pull` fetches what another machine made"
            self.say(f"not complete ({'; '.join(self.state.missing)}): {remedy}")
        if self.unproven:
            self.say(f"not published, since no files here prove that they ran: {', '.join(self.unproven)}")
        digest_before = deployment.current_digest(self.task)
        journal.finish_interrupted(self.task, self.say)
        winner = self.state.winner
        registry_sync.require_seen_champion(self.client, self.task, digest_of(winner.folder) if winner else "")
        self._publish()
        registry_sync.update_mlflow(self.client, self.task)
        if deployment.current_digest(self.task) != digest_before:
            self.say(deployment.SERVICE_FOLLOWS)

    def _publish(self) -> None:
        runs = {candidate: self._complete(run) for candidate, run in self.state.runs.items()}
        for baseline in self.state.baselines:
            self._complete(baseline)
        bundle = self._read_winner_bundle()
        deployed = self._align_deployed(bundle.digest if bundle else None)
        if bundle is None or self.state.winner is None:
            self.say("no bundle to publish" + (f"; version {deployed.version} goes on serving" if deployed else ""))
            return
        build = Build(self.task, self.state.lock, bundle.digest, runs, self.state.winner.candidate, self.git)
        version = self._register(build, bundle)
        self._record_build(build, version)
        self._decide(version, bundle, deployed)

    def _complete(self, content: RunContent) -> Run:
        """Complete the run of a candidate, with the state of the sources when it was first published."""
        run, added = mlflow_runs.complete_run(
            self.client, self.experiment, content, partial(mlflow_runs.with_sources, git=self.git)
        )
        additions = ", ".join(f"{count} {name}" for name, count in added.items() if count and name != "run")
        self.say(
            f"run {content.name}: {'new, with ' if added['run'] else 'added '}{additions or 'nothing, it is complete'}"
        )
        return run

    def _read_winner_bundle(self) -> CheckedBundle | None:
        if self.state.winner is None:
            return None
        try:
            bundle = CheckedBundle.read(self.state.winner.folder)
        except BundleInvalid as error:
            self.say(f"the bundle cannot be published: {error}")
            return None
        if bundle.card.candidate != self.state.winner.candidate:
            held, winner = bundle.card.candidate, self.state.winner.candidate
            self.say(f"the bundle holds {held}, the winner is {winner}: `dvc repro` exports it")
            return None
        return bundle

    def _align_deployed(self, built_digest: str | None) -> ModelVersion | None:
        """Update MLflow by the deployed model; where there is none, begin with MLflow's champion, as `pull` does."""
        digest = deployment.current_digest(self.task)
        if digest == built_digest and digest is not None:
            return None  # it is registered and aligned with the build
        if digest is None and journal.read_history(self.task).is_withdrawn:
            return None
        if digest is None:
            version = registry.version_with(self.client, self.task, "champion")
            if version is not None:
                grounds = Grounds("pull", "nothing was deployed; it is MLflow's champion")
                promote.deploy_version(self.client, self.task, version, grounds)
                self.say(f"nothing was deployed: {version.name} version {version.version}, MLflow's champion, serves")
            return version
        version = registry.find_version(self.client, self.task, digest) or self._register_deployed(digest)
        if version is not None and promote.update_release_and_alias(self.client, self.task, version):
            self.say(f"{version.name} version {version.version} is what serves; deployed/ and MLflow agree again")
        return version

    def _register_deployed(self, digest: str) -> ModelVersion | None:
        """A version for the deployed bundle that MLflow lacks, as after mlflow.db was deleted."""
        try:
            bundle = CheckedBundle.read(deployment.folder_of(self.task, digest))
        except BundleInvalid as error:
            self.say(f"what serves is broken and MLflow has no copy: {error}")
            return None
        content = mlflow_runs.run_of_bundle(bundle, self.task)
        run, _ = mlflow_runs.complete_run(self.client, self.experiment, content)
        version, _ = registration.register(self.client, self.task, bundle, run.info.run_id, {})
        self.say(f"the bundle that serves ({digest[:12]}) is {version.name} version {version.version} again")
        return version

    def _register(self, build: Build, bundle: CheckedBundle) -> ModelVersion:
        run = build.runs[build.winner]
        mlflow_runs.tag_run(self.client, run, {"convoy.bundle_digest": bundle.digest})
        tags = {
            "architecture": bundle.card.architecture,
            "candidate": build.winner,
            "convoy.run_key": run.data.tags[mlflow_runs.RUN_KEY],
        }
        version, is_new = registration.register(
            self.client, self.task, bundle, run.info.run_id, tags, lambda: build.sources
        )
        state = "new" if is_new else "known already"
        self.say(
            f"winner {build.winner}: bundle {bundle.digest[:12]} is {version.name} version {version.version} ({state})"
        )
        return version

    def _record_build(self, build: Build, version: ModelVersion) -> None:
        _, added = build_runs.record(self.client, self.experiment, build, version)
        state = f"new, of {', '.join(build.runs)}" if added["run"] else "known already"
        self.say(f"build {build.digest[:12]}: {state}")

    def _decide(self, version: ModelVersion, bundle: CheckedBundle, deployed: ModelVersion | None) -> None:
        gate_reports.put_stored_reports(self.client, self.task, version)
        if deployment.current_digest(self.task) == bundle.digest:
            changed = promote.update_release_and_alias(self.client, self.task, version, bundle)
            self.say(f"version {version.version} serves" + (", deployed/ and MLflow agree again" if changed else ""))
            return
        if decision := self._earlier_decision(version, bundle):
            self._keep_as_challenger(version, deployed, f"it was decided on before ({decision})")
            return
        judgement = gate_reports.judge(self.client, self.task, version, deployed, bundle, self.state.lock, self.say)
        if judgement.report.objections:
            self._record_objections(version, bundle, deployed, judgement)
        elif judgement.needs_person and deployed is not None:
            self._keep_as_challenger(
                version, deployed, "it passed every gate, and release.yaml has publish.promote: asked"
            )
        else:
            self._promote(version, bundle, deployed, judgement)

    def _earlier_decision(self, version: ModelVersion, bundle: CheckedBundle) -> str | None:
        """The decision on this bundle, here or, by MLflow's tag, elsewhere; after it only a person decides."""
        last = journal.read_history(self.task).about(bundle.digest)
        return last.told if last else version.tags.get(registry_sync.DECISION)

    def _record_objections(
        self, version: ModelVersion, bundle: CheckedBundle, deployed: ModelVersion | None, judgement: Judgement
    ) -> None:
        """Record a refusal where a gate failed; where one is undecided nothing is recorded, and it is judged again."""
        why = "; ".join(judgement.report.objections)
        if judgement.report.outcome == "failed":
            challenger = Model(version=str(version.version), digest=bundle.digest)
            journal.append(
                self.task, journal.deployed_model(self.task), challenger, self._grounds("refusal", why, judgement)
            )
        self._keep_as_challenger(version, deployed, why)

    def _promote(
        self, version: ModelVersion, bundle: CheckedBundle, deployed: ModelVersion | None, judgement: Judgement
    ) -> None:
        why = f"it passed every gate beside version {deployed.version}" if deployed else "no champion before"
        promote.deploy_version(self.client, self.task, version, self._grounds("promotion", why, judgement), bundle)
        replaced = f" over version {deployed.version}" if deployed else ": no champion before"
        self.say(f"version {version.version} promoted{replaced}; it serves from {DEPLOYED / self.task}/current")

    def _grounds(self, kind: Literal["promotion", "refusal"], why: str, judgement: Judgement) -> Grounds:
        return Grounds(kind, why, judgement.report.figures, judgement.file, self.git.revision if self.git else None)

    def _keep_as_challenger(self, version: ModelVersion, deployed: ModelVersion | None, why: str) -> None:
        registry.set_alias(self.client, self.task, "challenger", version.version)
        deployed_name = f"version {deployed.version}" if deployed else "nothing"
        self.say(f"version {version.version} stays challenger, {deployed_name} serves: {why}")
        command = f"python -m convoy promote --task {self.task} --version {version.version} --reason '...'"
        self.say(f"to let it serve all the same: {command}")
