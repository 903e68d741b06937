"""A task that is given up: its model is no longer deployed; its bundles, its history and MLflow's records stay."""

from convoy.core.process import Say
from convoy.release import deployment, journal
from convoy.release.decision import Grounds
from convoy.tracking import provenance


def withdraw(task: str, why: str, say: Say) -> bool:
    """Withdraw the deployed model of a task by a decision; returns whether there was one.

    A service that is running answers 404 for the task within seconds. The caller holds locks.hold_deployed(). Raises
    DecisionsBroken.
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
