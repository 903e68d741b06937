"""What is built, published, deployed and serving -> where each stands, and what to type next where they differ."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from convoy.bundles.bundle import BundleInvalid, digest_of, read_bundle
from convoy.core import paths
from convoy.core.paths import DEPLOYED, TASKS, Task
from convoy.core.process import Say
from convoy.release import deployment, journal
from convoy.release.decision import History
from convoy.tracking import build_state, store
from convoy.tracking.provenance import Lock, LockInvalid
from convoy.tracking.store import Registry, RegistryUnavailable

PLACES = ("built", "published", "deployed", "serving")
ANSWERS_WITHIN_S = 1.0


@dataclass(frozen=True)
class TaskStatus:
    """What is in one of the four places: a model, or the reason why there is none or not a whole one."""

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
    """Where a task stands in all four places."""

    task: Task
    built: TaskStatus
    published: TaskStatus
    deployed: TaskStatus
    serving: TaskStatus
    last_decision: str | None
    next: list[Step] = field(default_factory=list)


def read_status(port: int) -> list[Status]:
    """Where all tasks stand now; reads only, and needs neither MLflow's client nor anything that is whole."""
    answers = _ask_service(port)
    try:
        lock: Lock | str = Lock.read()
    except (LockInvalid, OSError) as error:
        lock = str(error)
    return [_look_at(task, lock, answers, port) for task in TASKS]


def to_json(found: list[Status]) -> str:
    """The same for programs."""
    return json.dumps({each.task: asdict(each) for each in found}, indent=2, ensure_ascii=False)


def print_status(found: list[Status], say: Say) -> None:
    """For people."""
    for status in found:
        say(f"{status.task}:")
        for place in PLACES:
            say(f"  {place:<11}{getattr(status, place)}")
        if status.last_decision:
            say(f"  {'decided':<11}{status.last_decision}")
        for step in status.next:
            say(f"  {'next':<11}{step.command}    # {step.why}")


def _look_at(task: Task, lock: Lock | str, answers: dict[str, Any] | str, port: int) -> Status:
    history: History | None = None
    torn = ""
    try:
        history = journal.read_history(task)
    except (journal.DecisionsBroken, OSError) as error:
        torn = str(error)
    registry: Registry | None = None
    away = ""
    try:
        registry = store.read_registry(task)
    except RegistryUnavailable as error:
        away = str(error)
    made = _built(task, lock)
    deployed = _deployed(task)
    published = _published(registry, away, made)
    serving = _serving(task, answers, port)
    last = history.decisions[-1].told if history and history.decisions else None
    status = Status(task, made, published, deployed, serving, torn or last)
    return replace(status, next=_steps(status, registry, history, port))


def _built(task: Task, lock: Lock | str) -> TaskStatus:
    folder = paths.bundle(task)
    if isinstance(lock, str):
        return TaskStatus(remark=lock, whole=False)
    try:
        found = build_state.read_build_state(task, lock)
        digest = digest_of(folder)
    except OSError:
        return TaskStatus(remark=f"nothing: {folder} is not there", whole=False)
    if found.winner is not None:
        return TaskStatus(digest)
    return TaskStatus(digest, remark=f"not complete: {'; '.join(found.missing)}", whole=False)


def _published(registry: Registry | None, away: str, made: TaskStatus) -> TaskStatus:
    if registry is None:
        return TaskStatus(remark=f"not known: {away}", whole=False)
    found = registry.of_digest(made.digest) if made.digest else None
    if found is None:
        return TaskStatus(remark="nothing" if made.digest is None else f"not the bundle {made.digest[:12]} yet")
    aliases = [alias for alias, version in registry.aliases.items() if version == found.version]
    return TaskStatus(found.digest, found.version, found.since, ", ".join(aliases))


def _deployed(task: Task) -> TaskStatus:
    digest = deployment.current_digest(task)
    if digest is None:
        link = DEPLOYED / task / deployment.CURRENT
        return TaskStatus(
            remark=f"{link} is not the link that Convoy makes" if link.exists() else "nothing", whole=False
        )
    release = journal.release_of_bundle(task, digest)
    version, since = (release.version, release.promoted_at) if release else (None, None)
    try:
        is_it = read_bundle(deployment.folder_of(task, digest)).digest == digest and release is not None
        remark = "" if is_it else "broken: its release or its digest is not the right one"
    except (BundleInvalid, OSError) as error:
        remark = f"broken: {error}"
    return TaskStatus(digest, version, since, remark, not remark)


def _serving(task: Task, answers: dict[str, Any] | str, port: int) -> TaskStatus:
    if isinstance(answers, str):
        return TaskStatus(remark=answers, whole=False)
    found = answers.get(task, {})
    if found.get("state") != "ready":
        return TaskStatus(remark=f"nothing on port {port}: {found.get('reason', 'no such task')}", whole=False)
    release = found["release"]
    return TaskStatus(release["digest"], release["version"], release["promoted_at"])


def _ask_service(port: int) -> dict[str, Any] | str:
    """What /v1/models says, or why it says nothing."""
    key = os.environ.get("CONVOY_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
            content = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return f"nothing known: port {port} answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"nothing known: port {port} does not answer ({getattr(error, 'reason', error)})"
    return content if isinstance(content, dict) else f"nothing known: what listens on port {port} is no Convoy"


def _steps(status: Status, registry: Registry | None, history: History | None, port: int) -> list[Step]:
    made, deployed, serving = status.built, status.deployed, status.serving
    publish = "python -m convoy publish"
    steps = []
    if history is not None and history.unfinished is not None:
        steps.append(Step(publish, f"completes what was cut off: {history.unfinished.told}"))
    elif history is not None and deployed.digest is not None and not deployed.whole:
        steps.append(Step(publish, "mends what is deployed"))
    if not made.whole:
        steps.append(Step("dvc repro", "builds what is missing"))
    elif registry is None or status.published.digest is None:
        steps.append(Step(publish, "registers what is built"))
    elif deployed.digest is None:
        steps.append(Step(publish, "lets the first version serve"))
    elif made.digest != deployed.digest:
        steps.append(_decision_on(status, history))
    elif registry.aliases.get("champion") != status.published.version:
        steps.append(Step(publish, "brings the alias champion in line with what is deployed"))
    if deployed.whole and serving.digest != deployed.digest:
        steps.append(_service(serving, port))
    return list({step.command: step for step in reversed(steps)}.values())[::-1]


def _decision_on(status: Status, history: History | None) -> Step:
    """What to do with a version that is built and registered and does not serve."""
    number = status.published.version
    about = history.about(status.built.digest or "") if history else None
    if about is None:
        return Step("python -m convoy publish", "judges what is built")
    promote = f"python -m convoy promote --task {status.task} --version {number}"
    stands = history is not None and history.against(status.built.digest or "") is not None
    return Step(
        f"{promote} --reason '...'" if stands else promote, f"only if it shall serve all the same; it was: {about.told}"
    )


def _service(serving: TaskStatus, port: int) -> Step:
    if serving.digest is None:
        return Step(f"python -m convoy serve --port {port}", "nothing answers there with what is deployed")
    return Step("python -m convoy status", "the service follows within seconds; where it does not, its log says why")
