"""The registry's champion -> deployed/ of a machine that only serves, without pipeline and MLflow's server."""

import time
import traceback
from collections.abc import Callable
from functools import partial

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from convoy.bundles.bundle import BundleInvalid
from convoy.core import locks
from convoy.core import tasks as entries
from convoy.core.process import Say
from convoy.release import deployment, journal
from convoy.release.decision import Grounds
from convoy.release.deployment import TaskNameInvalid
from convoy.release.journal import DecisionsBroken
from convoy.release.promote import release_of
from convoy.release.rollback import withdraw
from convoy.tracking import registry, settings
from convoy.tracking.registry import VersionUnknown

Step = Callable[[MlflowClient, str, Say], bool]


def tasks_with_champions(client: MlflowClient) -> list[str]:
    """The tasks of which the registry has a champion; a machine that only serves has no params.yaml.

    Names that no task can have are left out: they would become folders here.
    """
    return sorted(task for task, aliases in registry.models(client).items() if "champion" in aliases)


def pull(client: MlflowClient, task: str, say: Say) -> bool:
    """Deploy the champion here; returns whether anything changed. Where this fails, the deployed model stays.

    Raises VersionUnknown where there is no champion or its files are gone, BundleInvalid where they are not whole,
    and first TaskNameInvalid.
    """
    deployment.require_name(task)
    version = registry.version_with(client, task, "champion")
    if version is None:
        raise VersionUnknown(
            f"{registry.model_name(task)} has no champion in {client.tracking_uri}; "
            "`python -m convoy publish` or `promote`, where the pipeline runs, makes one"
        )
    journal.finish_interrupted(task, say)
    nearby = [deployment.folder_of(task, registry.digest_of_version(version))]
    release = release_of(task, version)
    with registry.bundle_of(client, version, nearby) as bundle:
        changed = deployment.copy_bundle(task, bundle.folder, release)
    if deployment.current_digest(task) != release.digest:
        journal.decide(task, release, Grounds("pull", f"the champion of {client.tracking_uri}"))
        changed = True
    say(f"{task}: {version.name} version {version.version} {'serves now' if changed else 'serves already'}")
    return changed


def follow_withdrawal(client: MlflowClient, task: str, say: Say) -> bool:
    """Withdraw what a pull has deployed where the registry gave it up, or calls it otherwise; returns whether it did.

    Given up is a model that is registered and has no champion: an empty registry, or another, withdraws nothing. Under
    its present name the task is deployed here first.
    """
    history = journal.read_history(task)
    if history.is_withdrawn:
        return journal.finish_interrupted(task, say)
    if not history.champion or history.champion.digest != deployment.current_digest(task):
        return False
    if history.changes[-1].kind != "pull":
        return False
    aliases, present = registry.aliases_of(client, registry.model_name(task)), entries.PRESENT_NAMES.get(task)
    if aliases is None and present is not None and _has_champion(client, present):
        is_followed = deployment.current_digest(present) is not None
        return is_followed and withdraw(task, f"it is called {present} now in {client.tracking_uri}", say)
    if aliases is None or "champion" in aliases:
        return False
    return withdraw(task, f"{registry.model_name(task)} has no champion any more in {client.tracking_uri}", say)


def _has_champion(client: MlflowClient, task: str) -> bool:
    return registry.version_with(client, task, "champion") is not None


def steps(client: MlflowClient) -> list[tuple[str, Step]]:
    """What is to be done where no task is named: pull those with a champion, then look at what else is deployed."""
    found = tasks_with_champions(client)
    others = [task for task in entries.deployed() if task not in found]
    return [*((task, pull) for task in found), *((task, follow_withdrawal) for task in others)]


def attempt(step: Step, client: MlflowClient, task: str, say: Say, complain: Say) -> bool:
    """Do a step, and whether it succeeded; a failure is printed, so that the other tasks follow all the same."""
    try:
        step(client, task, say)
    except MlflowException as error:
        complain(f"{task}: MLflow ({settings.tracking_uri()}) refuses: {error.message}")
    except (BundleInvalid, DecisionsBroken, TaskNameInvalid, VersionUnknown, OSError) as error:
        complain(f"{task}: {error}")
    except Exception as error:  # a fault of ours
        complain(f"{task}: {type(error).__name__}: {error}\n{traceback.format_exc()}")
    else:
        return True
    return False


def follow(client: MlflowClient, task: str | None, every_s: float, say: Say) -> None:
    """Pull for ever, every `every_s` seconds; a failure is printed, and tried again the next time.

    Without a task all that have a champion then, also those that were published since; those that have none any more
    are withdrawn.
    """
    last_lines: dict[str, str] = {}

    def say_if_new(key: str, line: str) -> None:
        if line and line != last_lines.get(key):
            say(line)
        last_lines[key] = line

    while True:
        for name, step in [(task, pull)] if task else _steps_now(client, partial(say_if_new, "")):
            say_of_task = partial(say_if_new, name)
            try:
                with locks.hold_deployed(say):
                    attempt(step, client, name, say_of_task, say_of_task)
            except OSError as error:  # of the lock: a full disk, say
                say_of_task(f"{name}: {error}")
        time.sleep(every_s)


def _steps_now(client: MlflowClient, complain: Say) -> list[tuple[str, Step]]:
    try:
        found = steps(client)
    except MlflowException as error:
        complain(f"MLflow ({settings.tracking_uri()}) refuses: {error.message}")
        return []
    except OSError as error:  # of deployed/
        complain(str(error))
        return []
    complain("" if any(step is pull for _, step in found) else f"{client.tracking_uri} has no champion of any task")
    return found
