"""A decision on who serves -> deployed/: appended, then switched, then marked; what a kill cut off is made good."""

from convoy.bundles.bundle import BundleInvalid, Release, read_release
from convoy.core.paths import Task
from convoy.core.progress import Say
from convoy.release import deployment, journal
from convoy.release.decision import Decision, Grounds, Model


def decide(task: Task, release: Release, grounds: Grounds) -> Decision:
    """Decide that what `put` has brought to deployed/ serves.

    The appended line is the moment of the decision. Whoever is killed before it has changed nothing that answers; what
    comes after it is the same however often it is done, and `settle` does it where a kill has kept it from being done.
    """
    after = Model(version=release.version, digest=release.digest)
    decision = journal.decide(task, serving(task), after, grounds, release.promoted_at)
    deployment.switch(task, release.digest)
    journal.mark(task, decision, "done")
    return decision


def settle(task: Task, say: Say) -> bool:
    """Complete or undo what a kill has cut off, and take note of what changed deployed/ without a decision.

    Says whether that was needed. The caller holds locks.hold_deployed(). Raises decisions.DecisionsBroken.
    """
    history = journal.read_history(task)
    decision, now_serving = history.unfinished, serving(task)
    if decision is None:
        known = history.champion
        if now_serving is not None and (known is None or known.digest != now_serving.digest):
            why = "deployed/ was changed by something that decides nothing" if known else "it serves; no history before"
            journal.decide(task, known, now_serving, Grounds("found", why))
        return False
    if now_serving is None or now_serving.digest != decision.after.digest:
        if not deployment.is_whole(task, decision.after.digest):
            journal.mark(task, decision, "undone", "it was cut off, and its bundle is no longer whole in deployed/")
            say(f"a {decision.kind} was cut off and is undone, its bundle is no longer whole: {decision.told}")
            return True
        deployment.switch(task, decision.after.digest)
    journal.mark(task, decision, "done", "it had been cut off; the next command completed it")
    say(f"a {decision.kind} was cut off and is completed now: {decision.told}")
    return True


def serving(task: Task) -> Model | None:
    """What serves now, by deployed/; None where nothing does."""
    digest = deployment.current_digest(task)
    if digest is None:
        return None
    known = released(task, digest)
    return Model(version=known.version if known else None, digest=digest)


def released(task: Task, digest: str) -> Release | None:
    """The release beside a deployed bundle; None where there is none that can be read."""
    try:
        return read_release(deployment.folder_of(task, digest))
    except BundleInvalid:
        return None
