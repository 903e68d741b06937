"""The history -> a former model deployed again, or none any more; from deployed/ alone: MLflow may be away."""

from convoy.bundles.bundle import Release
from convoy.core.process import Say
from convoy.release import deployment, journal
from convoy.release.decision import ApprovalRefused, Grounds, History, Model, grounds_for, utc_now
from convoy.tracking import provenance, settings, store


def rollback(say: Say, task: str, number: str | None, reason: str, seen_digest: str | None) -> None:
    """Deploy a former model again; without a number the champion before this one. Needs no MLflow.

    One that machines share is asked where it answers: another decision there comes first.
    The caller holds locks.hold_deployed(), and updates MLflow. Raises ApprovalRefused.
    """
    if journal.finish_interrupted(task, say):
        seen_digest = deployment.current_digest(task)
    history = journal.read_history(task)
    target = history.one_before if number is None else _model_by_number(task, number, history)
    if target is None:
        raise ApprovalRefused(
            f"{journal.path_of(task)} names no champion of {task} before this one; "
            f"`python -m convoy promote --task {task} --version N` lets any version serve"
        )
    journal.refuse_if_deployed_changed(task, target, seen_digest)
    _refuse_unseen_champion(task, target, say)
    if deployment.current_digest(task) == target.digest:
        say(f"{target} of {task} serves from {deployment.current_link(task)}, as it did before")
        return
    release = _release_to_restore(task, target, history)
    grounds = grounds_for(history, target, "rollback", reason)
    deployment.copy_bundle(task, deployment.folder_of(task, target.digest), release)
    journal.decide(task, release, grounds)
    say(f"{target} of {task} serves from {deployment.current_link(task)} again")
    say(deployment.SERVICE_FOLLOWS)


def withdraw(task: str, why: str, say: Say) -> bool:
    """Withdraw the deployed model of a task that is given up, by a decision; returns whether there was one.

    Its bundles, its history and MLflow's records stay. A service that is running answers 404 for the task within
    seconds. The caller holds locks.hold_deployed(). Raises DecisionsBroken.
    """
    journal.finish_interrupted(task, say)
    model = journal.deployed_model(task)
    if model is None:
        return False
    decision = journal.append(task, model, model, Grounds("withdrawn", why, revision=provenance.revision()))
    deployment.remove_current(task)
    journal.mark(task, decision, "done")
    say(f"{task}: {model} is no longer deployed; `python -m convoy history --task {task}` keeps what was decided")
    return True


def _refuse_unseen_champion(task: str, target: Model, say: Say) -> None:
    """Raise ChampionMoved where MLflow is shared and answers, and another machine has decided meanwhile."""
    where = settings.tracking_uri()
    if settings.is_local(where):
        return
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from convoy.release import registry_sync
    from convoy.tracking.artifacts import ArtifactRefused

    try:
        registry_sync.require_seen_champion(MlflowClient(where, where), task, target.digest)
    except (ArtifactRefused, MlflowException, OSError) as error:
        say(f"MLflow ({where}) does not say whether another machine has decided meanwhile: {error}")


def _model_by_number(task: str, number: str, history: History) -> Model:
    """The model with this number in MLflow; where MLflow is away, the last with it in the history."""
    try:
        version = store.read_registry(task).of_number(number)
        if version is not None:
            return Model(version=number, digest=version.digest)
    except store.RegistryUnavailable:
        models = [model for change in history.changes for model in (change.before, change.after) if model is not None]
        for model in reversed(models):
            if model.version == number:
                return model
    raise ApprovalRefused(
        f"no version {number} of {task} is known; `python -m convoy history --task {task}` has those that served"
    )


def _release_to_restore(task: str, target: Model, history: History) -> Release:
    """The release of a former model, whose bundle is whole in deployed/. Raises ApprovalRefused."""
    release = journal.release_of_bundle(task, target.digest)
    if not history.has_served(target.digest):
        raise ApprovalRefused(
            f"{target} has never served for {task}, so there is no way back to it; "
            f"`python -m convoy promote --task {task} --version {target.version}` lets it serve"
        )
    if release is None or not deployment.is_whole(task, target.digest):
        raise ApprovalRefused(
            f"{deployment.folder_of(task, target.digest)} is not whole; "
            f"`python -m convoy promote --task {task} --version {target.version}` fetches it from MLflow"
        )
    return release.model_copy(update={"promoted_at": utc_now()})
