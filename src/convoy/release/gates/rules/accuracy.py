"""Gate: the challenger's accuracy against the champion's, and against the best champion before."""

from pydantic import Field

from convoy.core.params import Section
from convoy.evaluation.significance import pass_rate
from convoy.release.gates.evidence import Evidence, Pair
from convoy.release.gates.verdict import Verdict, as_points

COMPARES = True


class Limits(Section):
    """The least difference to the champion's accuracy: below 0 so much worse is allowed, above 0 so much better due."""

    min_accuracy_difference: float = Field(ge=-1, le=1)


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """Compare the figures without an interval, which would refuse most equal models or pass most worse ones.

    The challenger is also compared with the best earlier champion, so that many allowed drops do not add up; a gain
    that is required over the champion is not required over that one.
    """
    pair, best, least = evidence.paired, evidence.best_accuracy, limits.min_accuracy_difference
    assert pair is not None
    change = f"{as_points(abs(pair.difference))} {'worse' if pair.difference < 0 else 'better'}"
    requirement = (
        f"at most {as_points(-least)} worse is allowed" if least <= 0 else f"{as_points(least)} better is asked for"
    )
    far_below = best is not None and pair.challenger < best.value + min(least, 0) - 1e-12
    before = f"; the best champion before, version {best.version}, had {best.value:.2%}" if best else ""
    return Verdict(
        gate="accuracy",
        unit="share",
        champion=pair.champion,
        challenger=pair.challenger,
        limit=f"{least * 100:+g} points",
        outcome="passed" if pair.difference >= least - 1e-12 and not far_below else "failed",
        sentence=f"its accuracy is {pair.challenger:.2%}, the champion's {pair.champion:.2%}: {change}, "
        f"{requirement}{before}; {_error_rates(pair, least)}",
    )


def _error_rates(pair: Pair, least: float) -> str:
    """How often this comparison of two figures errs, with these counts of rows and disagreements."""
    step = abs(least) or 0.01

    def passes(drop: float) -> float:
        return pass_rate(pair.rows, pair.wins + pair.losses, drop, least)

    return (
        f"an equal model would be refused in {1 - passes(0):.0%} of cases, one that is truly worse by "
        f"{as_points(step / 2)} would pass in {passes(step / 2):.0%}, "
        f"by {as_points(2 * step)} in {passes(2 * step):.0%}"
    )
