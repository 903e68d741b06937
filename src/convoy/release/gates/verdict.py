"""The verdict of a gate: what was measured, the limit, the outcome, and the reason in plain words."""

from typing import Literal

from convoy.evaluation.significance import POWER, detectable_drop
from convoy.release.gates.evidence import GATE, Evidence, Measured, Pair

Outcome = Literal["passed", "failed", "undecided"]
Unit = Literal["share", "nats", "difference", "bytes", "ms", "count"]


class Verdict(Measured):
    """One gate: what was measured of champion and challenger in `unit`, the limit, and the outcome.

    undecided: it could not be measured or must not be compared, and a person has to decide.
    """

    gate: str
    unit: Unit
    champion: float | None = None
    challenger: float | None = None
    limit: str
    outcome: Outcome
    sentence: str


def unknown(gate: str, unit: Unit, what: str, evidence: Evidence) -> Verdict:
    """The verdict on something that was not measured, with the reason."""
    why = evidence.unknown.get(gate) or evidence.obstacle or evidence.unknown.get(GATE) or "it was not measured"
    return Verdict(gate=gate, unit=unit, limit="", outcome="undecided", sentence=f"{what} cannot be told: {why}")


def as_points(share: float) -> str:
    """A share in percentage points."""
    return f"{share * 100:.2f} points"


def describe_power(pair: Pair, significance: float) -> str:
    """Which true drop a paired test of so many rows would find."""
    drop = detectable_drop(pair.rows, pair.wins + pair.losses, significance)
    if drop > 1:
        return "no drop would be found with so few rows"
    return f"a true drop of {as_points(drop)} would be found in {POWER:.0%} of cases"
