"""`python -m convoy doctor`: everything that Convoy depends on, checked one after the other, each with its remedy."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

from convoy.core.process import Say

State = Literal["ok", "warning", "broken"]

MARKS: dict[State, str] = {"ok": "ok", "warning": "WARN", "broken": "BROKEN"}
INSTALL = "`uv pip install -c requirements.lock '.[train,serve]'`"


@dataclass(frozen=True)
class Check:
    """One finding; `broken` is what keeps a verb from working, `warning` what a person should know."""

    about: str
    state: State
    says: str
    remedy: str = ""


CheckFunction = Callable[[], Iterator[Check]]


def ok(about: str, says: str) -> Check:
    """It is as it should be."""
    return Check(about, "ok", says)


def warning(about: str, says: str, remedy: str) -> Check:
    """It works, and a person should know."""
    return Check(about, "warning", says, remedy)


def broken(about: str, says: str, remedy: str) -> Check:
    """Something will not work."""
    return Check(about, "broken", says, remedy)


def run_checks(port: int, mlflow_port: int) -> list[Check]:
    """Look at everything; what cannot be looked at is a finding too, and keeps nothing else from being looked at."""
    found = []
    for about, look in _looks(port, mlflow_port).items():
        try:
            found += list(look())
        except ImportError as error:  # a machine that only serves lacks most of it
            found.append(warning(about, f"{error.name or error} is not installed", INSTALL))
        except Exception as error:  # whatever is so broken that looking at it fails
            reason = f"looking at it failed: {type(error).__name__}: {error}"
            found.append(broken(about, reason, "mend what that names, then ask again"))
    return found


def print_checks(found: list[Check], say: Say) -> None:
    """For people: one line each, and the remedy below."""
    for finding in found:
        say(f"{MARKS[finding.state]:<7} {finding.about}: {finding.says}")
        if finding.remedy:
            say(f"{'':<7} -> {finding.remedy}")
    counts = {state: sum(finding.state == state for finding in found) for state in MARKS}
    say(f"{counts['ok']} are well, {counts['warning']} to know, {counts['broken']} broken")


def to_json(found: list[Check]) -> str:
    """For programs."""
    return json.dumps([asdict(finding) for finding in found], indent=2, ensure_ascii=False)


def _looks(port: int, mlflow_port: int) -> dict[str, CheckFunction]:
    """What is looked at. Each imports what it needs when it looks: any of it may be missing."""

    def of(module: str, name: str, *arguments: int) -> Iterator[Check]:
        from importlib import import_module

        look: Callable[..., Iterator[Check]] = getattr(import_module(f"convoy.operations.doctor.{module}"), name)
        yield from look(*arguments)

    return {
        "Python": partial(of, "versions", "look_at_python"),
        "packages": partial(of, "versions", "look_at_packages"),
        "requirements.lock": partial(of, "versions", "look_at_lock"),
        "git": partial(of, "stores", "look_at_git"),
        "DVC": partial(of, "stores", "look_at_dvc"),
        "MLflow's store": partial(of, "stores", "look_at_mlflow"),
        "deployed": partial(of, "stores", "look_at_deployed"),
        "ports": partial(of, "machine", "look_at_ports", port, mlflow_port),
        "GPU": partial(of, "machine", "look_at_gpu"),
        "threads": partial(of, "machine", "look_at_threads"),
        "disk": partial(of, "machine", "look_at_disk"),
    }
