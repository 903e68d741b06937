"""Gate: a real service gives the same probabilities as the bundle."""

from pydantic import Field

from convoy.release.gates.evidence import REST, Evidence
from convoy.release.gates.rules.parity import ParityLimits, judge_parity
from convoy.release.gates.verdict import Verdict

COMPARES = False


class Limits(ParityLimits):
    """Also how many rows are sent to it; 0 starts none."""

    rest_rows: int = Field(ge=0)


def judge(evidence: Evidence, limits: Limits) -> Verdict | None:
    """None where params.yaml asks for no row."""
    if not limits.rest_rows:
        return None
    return judge_parity(REST, evidence.rest, evidence, limits, "the service and the bundle")
