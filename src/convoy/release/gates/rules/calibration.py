"""Gate: how far the challenger's probabilities are off, on average."""

from pydantic import Field

from convoy.core.params import Section
from convoy.release.gates.evidence import GATE, Evidence
from convoy.release.gates.verdict import Verdict, as_points, unknown

COMPARES = False


class Limits(Section):
    """The calibration error that is allowed beside what chance adds."""

    max_calibration_error: float = Field(ge=0, le=1)


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """Fail above the margin plus chance: the measured error is at most the true error and chance together.

    So about one in 100 models whose true error is the margin is refused, or fewer, however few the rows are.
    """
    challenger, champion, most = evidence.challenger, evidence.champion, limits.max_calibration_error
    if challenger is None:
        return unknown(GATE, "share", "its answers", evidence)
    error, chance = challenger.calibration_error, challenger.calibration_by_chance
    return Verdict(
        gate="calibration",
        unit="share",
        champion=champion.calibration_error if champion else None,
        challenger=error,
        limit=f"{(most + chance) * 100:.2f} points",
        outcome="passed" if error <= most + chance else "failed",
        sentence=f"its probabilities are off by {as_points(error)} on average, {as_points(most)} is allowed, "
        f"and chance adds up to {as_points(chance)} with as many rows",
    )
