"""The history -> the model that served before serves again, from deployed/ alone: MLflow may be away."""

from convoy.bundles.bundle import Release
from convoy.core.paths import Task
from convoy.core.process import Say
from convoy.release import deployment, journal
from convoy.release.approval import SERVICE_FOLLOWS, ApprovalRefused, current_link, grounds_for, refuse_second
from convoy.release.decision import History, Model, utc_now
from convoy.tracking import store


def rollback(say: Say, task: Task, number: str | None, reason: str, seen: str | None) -> None:
    """Let a model serve again that did before; without one the champion before this one. Needs no MLflow.

    The caller holds locks.hold_deployed(), and shows it in MLflow. Raises ApprovalRefused.
    """
    if journal.finish_interrupted(task, say):
        seen = deployment.current_digest(task)
    history = journal.read_history(task)
    target = history.one_before if number is None else _numbered(task, number, history)
    if target is None:
        raise ApprovalRefused(
            f"{journal.path_of(task)} names no champion of {task} before this one; "
            f"`python -m convoy promote --task {task} --version N` lets any version serve"
        )
    refuse_second(task, target, seen)
    if deployment.current_digest(task) == target.digest:
        say(f"{target} of {task} serves from {current_link(task)}, as it did before")
        return
    release = _kept(task, target, history)
    grounds = grounds_for(history, target, "rollback", reason)
    deployment.put(task, deployment.folder_of(task, target.digest), release)
    journal.decide(task, release, grounds)
    say(f"{target} of {task} serves from {current_link(task)} again")
    say(SERVICE_FOLLOWS)


def _numbered(task: Task, number: str, history: History) -> Model:
    """The model that MLflow knows by a number; where MLflow is away, the last that the history knows by it."""
    try:
        found = store.read_registry(task).of_number(number)
        if found is not None:
            return Model(version=number, digest=found.digest)
    except store.RegistryUnavailable:
        named = [model for each in history.changes for model in (each.before, each.after) if model is not None]
        for model in reversed(named):
            if model.version == number:
                return model
    raise ApprovalRefused(
        f"no version {number} of {task} is known; `python -m convoy history --task {task}` has those that served"
    )


def _kept(task: Task, target: Model, history: History) -> Release:
    """The release of a model that served, with its bundle whole in deployed/. Raises ApprovalRefused."""
    known = journal.release_of_bundle(task, target.digest)
    if not history.has_served(target.digest):
        raise ApprovalRefused(
            f"{target} has never served for {task}, so there is no way back to it; "
            f"`python -m convoy promote --task {task} --version {target.version}` lets it serve"
        )
    if known is None or not deployment.is_whole(task, target.digest):
        raise ApprovalRefused(
            f"{deployment.folder_of(task, target.digest)} is not whole; "
            f"`python -m convoy promote --task {task} --version {target.version}` fetches it from MLflow"
        )
    return known.model_copy(update={"promoted_at": utc_now()})
