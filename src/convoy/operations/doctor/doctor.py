"""`python -m convoy doctor`: what `status`, `verify` and `pip check` do not say, each finding with its remedy."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Literal

from convoy.core.process import Say

State = Literal["ok", "warning", "broken"]

MARKS: dict[State, str] = {"ok": "ok", "warning": "WARN", "broken": "BROKEN"}
INSTALL = "`uv pip install -c requirements.lock '.[train,serve]'`"
# Name -> module and function. Each module is imported when its check runs: any package may be missing.
CHECKS = {
    "requirements.lock": ("stores", "check_lock"),
    "git": ("stores", "check_git"),
    "DVC": ("stores", "check_dvc"),
    "MLflow's store": ("stores", "check_mlflow"),
    "GPU": ("machine", "check_gpu"),
    "threads": ("machine", "check_threads"),
    "disk": ("machine", "check_disk"),
}


@dataclass(frozen=True)
class Check:
    """One finding: `broken` keeps a command from working, `warning` is for a person to know."""

    about: str
    state: State
    says: str
    remedy: str = ""


def run_checks(port: int, mlflow_port: int) -> list[Check]:
    """Run every check; a check that fails is a finding too, and does not stop the others."""
    checks = []
    for name, (module, function) in {**CHECKS, "ports": ("machine", "check_ports")}.items():
        try:
            arguments = (port, mlflow_port) if name == "ports" else ()
            found: Iterator[Check] = getattr(import_module(f"convoy.operations.doctor.{module}"), function)(*arguments)
            checks += list(found)
        except ImportError as error:  # a machine that only serves lacks most packages
            checks.append(Check(name, "warning", f"{error.name or error} is not installed", INSTALL))
        except Exception as error:  # so broken that its check fails
            reason = f"looking at it failed: {type(error).__name__}: {error}"
            checks.append(Check(name, "broken", reason, "mend what that names, then ask again"))
    return checks


def print_checks(checks: list[Check], say: Say) -> None:
    """For people: one line each, and the remedy below."""
    for check in checks:
        say(f"{MARKS[check.state]:<7} {check.about}: {check.says}")
        if check.remedy:
            say(f"{'':<7} -> {check.remedy}")
    counts = {state: sum(check.state == state for check in checks) for state in MARKS}
    say(f"{counts['ok']} are well, {counts['warning']} to know, {counts['broken']} broken")
    say(
        "of what is built, published and deployed `status` tells, of data and weights `verify`, of packages `pip check`"
    )


def to_json(checks: list[Check]) -> str:
    """For programs."""
    return json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False)
