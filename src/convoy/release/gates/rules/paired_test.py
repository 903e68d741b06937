"""Gate: is the challenger worse than the champion by more than chance explains? McNemar's exact test."""

from pydantic import Field

from convoy.core.params import Section
from convoy.release.gates.evidence import Evidence
from convoy.release.gates.verdict import Verdict, as_points, describe_power

COMPARES = True


class Limits(Section):
    """The significance of the test, two-sided."""

    significance: float = Field(gt=0, lt=0.5)


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """Fail where it is worse, and significantly so."""
    pair, significance = evidence.paired, limits.significance
    assert pair is not None
    failed = pair.losses > pair.wins and pair.p < significance
    counts = (
        f"of {pair.rows:,} rows it alone has {pair.wins} right, the champion alone {pair.losses} (p = {pair.p:.2g})"
    )
    power = describe_power(pair, significance)
    return Verdict(
        gate="paired test",
        unit="share",
        champion=pair.champion,
        challenger=pair.challenger,
        limit=f"p >= {significance:g}, or better",
        outcome="failed" if failed else "passed",
        sentence=f"it is worse by {as_points(-pair.difference)}, and not by chance: {counts}"
        if failed
        else f"it is not worse than chance explains: {counts}; {power}",
    )
