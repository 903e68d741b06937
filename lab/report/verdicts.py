"""An estimate and what was claimed of it -> held, did not hold, or not shown; nobody writes a verdict by hand."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from lab.learning.estimates import Estimate

Outcome = Literal["held", "did not hold", "not shown"]
OUTCOMES: tuple[Outcome, ...] = ("held", "did not hold", "not shown")


@dataclass(frozen=True)
class Verdict:
    """What people say, whether it held here, and the figures that say so."""

    claim: str
    outcome: Outcome
    figures: str
    unfair: str = ""  # why this test cannot settle the claim; empty where nothing is held against it

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        ends = {
            "held": "held",
            "did not hold": "did not hold",
            "not shown": "neither shown nor refuted with these figures",
        }
        return f"{self.claim}: {ends[self.outcome]}; {self.figures}."


def unfair(reason: str, verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The same verdicts, marked with why their test is unfair."""
    return [replace(verdict, unfair=reason) for verdict in verdicts]


def above(found: Estimate, margin: float) -> Outcome:
    """Claimed: more than the margin. Held where all of the interval is, did not hold where none of it is."""
    if found.low > margin:
        return "held"
    return "did not hold" if found.high < margin else "not shown"


def within(found: Estimate, margin: float) -> Outcome:
    """Claimed: no difference that matters. Held where all of the interval is between minus and plus the margin."""
    if -margin <= found.low and found.high <= margin:
        return "held"
    return "did not hold" if found.low > margin or found.high < -margin else "not shown"


def all_of(cases: Iterable[bool]) -> Outcome:
    """Claimed of every case: one that contradicts is enough; without any nothing is shown."""
    known = list(cases)
    if not known:
        return "not shown"
    return "held" if all(known) else "did not hold"


def points(found: Estimate) -> str:
    """Shares as percentage points with the 95 % interval."""
    return f"{100 * found.mean:z.1f} points ({100 * found.low:z.1f} to {100 * found.high:z.1f})"


def percent(found: Estimate) -> str:
    """An accuracy with its interval."""
    return f"{100 * found.mean:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def number(found: Estimate) -> str:
    """Any other number with its interval."""
    return f"{found.mean:z.2f} ({found.low:z.2f} to {found.high:z.2f})"
