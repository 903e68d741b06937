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
    """One finding: `broken` keeps a command from working, `warning` is for a person to know."""

    about: str
    state: State
    says: str
    remedy: str = ""


CheckFunction = Callable[[], Iterator[Check]]


def ok(about: str, says: str) -> Check:
    """A finding without a problem."""
    return Check(about, "ok", says)


def warning(about: str, says: str, remedy: str) -> Check:
    """A finding that a person should know."""
    return Check(about, "warning", says, remedy)


def broken(about: str, says: str, remedy: str) -> Check:
    """A finding that keeps a command from working."""
    return Check(about, "broken", says, remedy)


def run_checks(port: int, mlflow_port: int) -> list[Check]:
    """Run every check; a check that fails is a finding too, and does not stop the others."""
    checks = []
    for name, check in _check_functions(port, mlflow_port).items():
        try:
            checks += list(check())
        except ImportError as error:  # a machine that only serves lacks most packages
            checks.append(warning(name, f"{error.name or error} is not installed", INSTALL))
        except Exception as error:  # so broken that its check fails
            reason = f"looking at it failed: {type(error).__name__}: {error}"
            checks.append(broken(name, reason, "mend what that names, then ask again"))
    return checks


def print_checks(checks: list[Check], say: Say) -> None:
    """For people: one line each, and the remedy below."""
    for check in checks:
        say(f"{MARKS[check.state]:<7} {check.about}: {check.says}")
        if check.remedy:
            say(f"{'':<7} -> {check.remedy}")
    counts = {state: sum(check.state == state for check in checks) for state in MARKS}
    say(f"{counts['ok']} are well, {counts['warning']} to know, {counts['broken']} broken")


def to_json(checks: list[Check]) -> str:
    """For programs."""
    return json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False)


def _check_functions(port: int, mlflow_port: int) -> dict[str, CheckFunction]:
    """The checks by name. Each imports what it needs when it runs: any package may be missing."""

    def load_and_run(module: str, name: str, *arguments: int) -> Iterator[Check]:
        from importlib import import_module

        check: Callable[..., Iterator[Check]] = getattr(import_module(f"convoy.operations.doctor.{module}"), name)
        yield from check(*arguments)

    return {
        "Python": partial(load_and_run, "versions", "check_python"),
        "packages": partial(load_and_run, "versions", "check_packages"),
        "requirements.lock": partial(load_and_run, "versions", "check_lock"),
        "git": partial(load_and_run, "stores", "check_git"),
        "DVC": partial(load_and_run, "stores", "check_dvc"),
        "MLflow's store": partial(load_and_run, "stores", "check_mlflow"),
        "deployed": partial(load_and_run, "stores", "check_deployed"),
        "ports": partial(load_and_run, "machine", "check_ports", port, mlflow_port),
        "GPU": partial(load_and_run, "machine", "check_gpu"),
        "threads": partial(load_and_run, "machine", "check_threads"),
        "disk": partial(load_and_run, "machine", "check_disk"),
    }
