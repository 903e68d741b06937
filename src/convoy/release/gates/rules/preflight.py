"""Gate: the data that the challenger was built on keeps the limits of its preparation."""

from convoy.core.params import Section
from convoy.release.gates.evidence import PREFLIGHT, Evidence
from convoy.release.gates.verdict import Verdict, unknown

COMPARES = False


class Limits(Section):
    """None here: the section that prepares the data has them."""


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """Undecided where the findings are not those that dvc.lock names."""
    violations = evidence.preflight
    if violations is None:
        return unknown(PREFLIGHT, "count", "what its data is like", evidence)
    return Verdict(
        gate=PREFLIGHT,
        unit="count",
        challenger=len(violations),
        limit="nothing",
        outcome="failed" if violations else "passed",
        sentence="; ".join(violations) if violations else "its data keeps all limits of preparation",
    )
