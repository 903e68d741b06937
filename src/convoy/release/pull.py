"""The registry's champion -> deployed/ of a machine that only serves, without pipeline and MLflow's server."""

import time
import traceback
from functools import partial

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from convoy.bundles.bundle import BundleInvalid
from convoy.core import locks
from convoy.core.paths import Task
from convoy.core.process import Say
from convoy.release import deployment, journal
from convoy.release.decision import Grounds
from convoy.release.journal import DecisionsBroken
from convoy.release.promote import release_of
from convoy.tracking import registry, settings
from convoy.tracking.registry import VersionUnknown


def pull(client: MlflowClient, task: Task, say: Say) -> bool:
    """Deploy the champion here; returns whether anything changed. Where this fails, the deployed model stays.

    Raises VersionUnknown where there is no champion or its files are gone, BundleInvalid where they are not whole.
    """
    version = registry.version_with(client, task, "champion")
    if version is None:
        raise VersionUnknown(
            f"{registry.model_name(task)} has no champion in {client.tracking_uri}; "
            "`python -m convoy publish` or `promote`, where the pipeline runs, makes one"
        )
    journal.finish_interrupted(task, say)
    nearby = [deployment.folder_of(task, registry.digest_of_version(version))]
    release = release_of(task, version)
    with registry.bundle_of(client, version, nearby) as folder:
        changed = deployment.copy_bundle(task, folder, release)
    if deployment.current_digest(task) != release.digest:
        journal.decide(task, release, Grounds("pull", f"the champion of {client.tracking_uri}"))
        changed = True
    say(f"{task}: {version.name} version {version.version} {'serves now' if changed else 'serves already'}")
    return changed


def try_pull(client: MlflowClient, task: Task, say: Say, complain: Say) -> bool:
    """`pull`, and whether it succeeded; a failure is printed, so that the other tasks are pulled all the same."""
    try:
        pull(client, task, say)
    except MlflowException as error:
        complain(f"{task}: MLflow ({settings.tracking_uri()}) refuses: {error.message}")
    except (BundleInvalid, DecisionsBroken, VersionUnknown, OSError) as error:
        complain(f"{task}: {error}")
    except Exception as error:  # a fault of ours
        complain(f"{task}: {type(error).__name__}: {error}\n{traceback.format_exc()}")
    else:
        return True
    return False


def follow(client: MlflowClient, tasks: list[Task], every_s: float, say: Say) -> None:
    """Pull for ever, every `every_s` seconds; a failure is printed, and tried again the next time."""
    last_lines = dict.fromkeys(tasks, "")

    def say_if_new(task: Task, line: str) -> None:
        if line != last_lines[task]:
            say(line)
        last_lines[task] = line

    while True:
        for task in tasks:
            try:
                with locks.hold_deployed(say):
                    try_pull(client, task, partial(say_if_new, task), partial(say_if_new, task))
            except OSError as error:  # of the lock: a full disk, say
                say_if_new(task, f"{task}: {error}")
        time.sleep(every_s)
