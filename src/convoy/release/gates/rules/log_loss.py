"""Gate: the challenger's log loss against the champion's, and against the best champion before."""

from pydantic import Field
from scipy.stats import norm

from convoy.core.params import Section
from convoy.release.gates.evidence import Evidence, LogLossRise
from convoy.release.gates.verdict import Verdict

COMPARES = True


class Limits(Section):
    """How much higher than the champion's the log loss may be, in nats."""

    max_log_loss_rise: float = Field(ge=0)


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """By the mean as it is, and against the best champion before, as the accuracy is."""
    rise, most = evidence.log_loss_rise, limits.max_log_loss_rise
    assert rise is not None
    challenger, champion, best = evidence.challenger, evidence.champion, evidence.best_log_loss
    far_above = best is not None and challenger is not None and challenger.log_loss > best.value + most + 1e-12
    before = f"; the best champion before, version {best.version}, had {best.value:.4f}" if best else ""
    return Verdict(
        gate="log loss",
        unit="nats",
        champion=champion.log_loss if champion else None,
        challenger=challenger.log_loss if challenger else None,
        limit=f"{most:+g}",
        outcome="passed" if rise.mean <= most + 1e-12 and not far_above else "failed",
        sentence=f"its log loss is {abs(rise.mean):.4f} {'higher' if rise.mean > 0 else 'lower'} than the champion's "
        f"(95 %: {rise.low:+.4f} to {rise.high:+.4f}), at most {most:g} higher is allowed{before}; "
        + _error_rates(rise, most),
    )


def _error_rates(rise: LogLossRise, most: float) -> str:
    """How often the mean of so many rows errs, by its standard error."""
    error = max((rise.high - rise.low) / (2 * norm.ppf(0.975)), 1e-12)
    worse = 2 * most or 2 * error
    refused, passed = norm.sf(most / error), norm.cdf((most - worse) / error)
    return (
        f"an equal model would be refused in {refused:.0%} of cases, one that is truly worse by {worse:.3g} would pass "
        f"in {passed:.0%}"
    )
