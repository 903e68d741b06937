"""Reads what is built, published, deployed and serving, and says what to type next where they differ."""

import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from convoy.bundles.bundle import BundleInvalid, digest_of, read_bundle
from convoy.core import paths, tasks
from convoy.core.params import ParamsInvalid
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.core.tasks import TaskUnknown
from convoy.release import deployment, journal
from convoy.release.decision import History
from convoy.tracking import build_state, store
from convoy.tracking.provenance import Lock, LockInvalid
from convoy.tracking.store import RegisteredModel, RegistryUnavailable

NO_ENTRY = f"{paths.PARAMS} has no such task"
PLACES = ("built", "published", "deployed", "serving")
ANSWERS_WITHIN_S = 1.0


@dataclass(frozen=True)
class TaskStatus:
    """What one of the four places has: a model, or the reason why it has none or a broken one."""

    digest: str | None = None
    version: str | None = None
    since: str | None = None
    remark: str = ""
    whole: bool = True

    def __str__(self) -> str:
        if self.digest is None:
            return self.remark or "nothing"
        version = f"version {self.version}, " if self.version else ""
        since = f", since {self.since[:16].replace('T', ' ')} UTC" if self.since else ""
        return f"{version}digest {self.digest[:12]}{since}" + (f"; {self.remark}" if self.remark else "")


@dataclass(frozen=True)
class Step:
    """What to type, and why."""

    command: str
    why: str


@dataclass(frozen=True)
class Status:
    """The status of a task in all four places."""

    task: str
    built: TaskStatus
    published: TaskStatus
    deployed: TaskStatus
    serving: TaskStatus
    last_decision: str | None
    next: list[Step] = field(default_factory=list)


def read_status(port: int) -> list[Status]:
    """The status of all tasks; reads only, survives broken files."""
    answers = _read_service_models(port)
    try:
        lock: Lock | str = Lock.read().without_leftovers(tasks.read().stages)
    except (LockInvalid, ParamsInvalid, OSError) as error:
        lock = str(error)
    return [_read_task_status(task, lock, answers, port) for task in _known_tasks()]


def _known_tasks() -> list[str]:
    """The tasks of params.yaml and of deployed/; the latter alone where params.yaml is broken."""
    try:
        return tasks.known()
    except ParamsInvalid:
        return sorted({*tasks.deployed(), *tasks.with_history()})


def _why_none() -> str:
    try:
        tasks.read()
    except ParamsInvalid as error:
        return f"{error}; no task is deployed here either"
    return f"{paths.PARAMS} has no tasks, and none is deployed here"


def to_json(statuses: list[Status]) -> str:
    """The statuses as JSON, by task."""
    return json.dumps({status.task: asdict(status) for status in statuses}, indent=2, ensure_ascii=False)


def print_status(statuses: list[Status], say: Say) -> None:
    """Print the statuses for people."""
    if not statuses:
        say(_why_none())
    for status in statuses:
        say(f"{status.task}:")
        for place in PLACES:
            say(f"  {place:<11}{getattr(status, place)}")
        if status.last_decision:
            say(f"  {'decided':<11}{status.last_decision}")
        for step in status.next:
            say(f"  {'next':<11}{step.command}    # {step.why}")


def _read_task_status(task: str, lock: Lock | str, answers: dict[str, Any] | str, port: int) -> Status:
    history: History | None = None
    history_error = ""
    try:
        history = journal.read_history(task)
    except (journal.DecisionsBroken, OSError) as error:
        history_error = str(error)
    registry: RegisteredModel | None = None
    registry_error = ""
    try:
        registry = store.read_registry(task)
    except RegistryUnavailable as error:
        registry_error = str(error)
    built = _read_built(task, lock)
    deployed = _read_deployed(task)
    published = _find_published(registry, registry_error, built)
    serving = _find_serving(task, answers, port)
    last = history.decisions[-1].told if history and history.decisions else None
    status = Status(task, built, published, deployed, serving, history_error or last)
    return replace(status, next=_next_steps(status, registry, history, port))


def _read_built(task: str, lock: Lock | str) -> TaskStatus:
    folder = paths.bundle(task)
    if isinstance(lock, str):
        return TaskStatus(remark=lock, whole=False)
    try:
        build = build_state.read_build_state(task, lock)
        digest = digest_of(folder)
    except OSError:
        return TaskStatus(remark=f"nothing: {folder} is not there", whole=False)
    except TaskUnknown:
        return TaskStatus(remark=NO_ENTRY)
    except ParamsInvalid as error:
        return TaskStatus(remark=str(error), whole=False)
    if build.winner is not None:
        return TaskStatus(digest)
    return TaskStatus(digest, remark=f"not complete: {'; '.join(build.missing)}", whole=False)


def _find_published(registry: RegisteredModel | None, registry_error: str, built: TaskStatus) -> TaskStatus:
    if registry is None:
        return TaskStatus(remark=f"not known: {registry_error}", whole=False)
    registered = registry.of_digest(built.digest) if built.digest else None
    if registered is None:
        return TaskStatus(remark="nothing" if built.digest is None else f"not the bundle {built.digest[:12]} yet")
    aliases = [alias for alias, version in registry.aliases.items() if version == registered.version]
    return TaskStatus(registered.digest, registered.version, registered.since, ", ".join(aliases))


def _read_deployed(task: str) -> TaskStatus:
    digest = deployment.current_digest(task)
    if digest is None:
        link = DEPLOYED / task / deployment.CURRENT
        return TaskStatus(
            remark=f"{link} is not the link that Convoy makes" if link.exists() else "nothing", whole=False
        )
    release = journal.release_of_bundle(task, digest)
    version, since = (release.version, release.promoted_at) if release else (None, None)
    try:
        is_right = read_bundle(deployment.folder_of(task, digest)).digest == digest and release is not None
        remark = "" if is_right else "broken: its release or its digest is not the right one"
    except (BundleInvalid, OSError) as error:
        remark = f"broken: {error}"
    return TaskStatus(digest, version, since, remark, not remark)


def _find_serving(task: str, answers: dict[str, Any] | str, port: int) -> TaskStatus:
    if isinstance(answers, str):
        return TaskStatus(remark=answers, whole=False)
    model = answers.get(task, {})
    if model.get("state") != "ready":
        return TaskStatus(remark=f"nothing on port {port}: {model.get('reason', 'no such task')}", whole=False)
    release = model["release"]
    return TaskStatus(release["digest"], release["version"], release["promoted_at"])


def _read_service_models(port: int) -> dict[str, Any] | str:
    """The answer of /v1/models, or why there is none."""
    key = os.environ.get("CONVOY_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
            content = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return f"nothing known: port {port} answers {error.code} {error.reason}"
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        return f"nothing known: port {port} does not answer ({getattr(error, 'reason', error)})"
    tasks_served = content.get("tasks") if isinstance(content, dict) else None
    return tasks_served if isinstance(tasks_served, dict) else f"nothing known: port {port} is not Convoy's"


def _next_steps(status: Status, registry: RegisteredModel | None, history: History | None, port: int) -> list[Step]:
    built, deployed, serving = status.built, status.deployed, status.serving
    publish = "python -m convoy publish"
    steps = []
    if history is not None and history.unfinished is not None:
        steps.append(Step(publish, f"completes what was cut off: {history.unfinished.told}"))
    elif history is not None and deployed.digest is not None and not deployed.whole:
        steps.append(Step(publish, "mends what is deployed"))
    if built.remark == NO_ENTRY:
        pass
    elif not built.whole:
        steps.append(Step("dvc repro", "builds what is missing"))
    elif registry is None or status.published.digest is None:
        steps.append(Step(publish, "registers what is built"))
    elif deployed.digest is None:
        steps.append(Step(publish, "lets the first version serve"))
    elif built.digest != deployed.digest:
        steps.append(_decision_step(status, history))
    elif registry.aliases.get("champion") != status.published.version:
        steps.append(Step(publish, "brings the alias champion in line with what is deployed"))
    if deployed.whole and serving.digest != deployed.digest:
        steps.append(_service_step(serving, port))
    return list({step.command: step for step in reversed(steps)}.values())[::-1]


def _decision_step(status: Status, history: History | None) -> Step:
    """The next step for a version that is registered and not deployed."""
    number = status.published.version
    decision = history.about(status.built.digest or "") if history else None
    if decision is None:
        return Step("python -m convoy publish", "judges what is built")
    promote = f"python -m convoy promote --task {status.task} --version {number}"
    is_refused = history is not None and history.against(status.built.digest or "") is not None
    return Step(
        f"{promote} --reason '...'" if is_refused else promote,
        f"only if it shall serve all the same; it was: {decision.told}",
    )


def _service_step(serving: TaskStatus, port: int) -> Step:
    if serving.digest is None:
        return Step(f"python -m convoy serve --port {port}", "nothing answers there with what is deployed")
    return Step("python -m convoy status", "the service follows within seconds; where it does not, its log says why")
