"""What a look at one thing found: whether it is as it should be, and if not the remedy."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One finding; `broken` is what keeps a verb from working, `warning` what a person should know."""

    about: str
    state: State
    says: str
    remedy: str = ""


def ok(about: str, says: str) -> Finding:
    """It is as it should be."""
    return Finding(about, "ok", says)


def warning(about: str, says: str, remedy: str) -> Finding:
    """It works, and a person should know."""
    return Finding(about, "warning", says, remedy)


def broken(about: str, says: str, remedy: str) -> Finding:
    """Something will not work."""
    return Finding(about, "broken", says, remedy)
