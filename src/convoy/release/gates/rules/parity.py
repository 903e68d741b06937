"""What two ways to the same probabilities may differ by; the verdict of both gates of parity."""

from pydantic import Field

from convoy.core.params import Section
from convoy.release.gates.evidence import Difference, Evidence
from convoy.release.gates.verdict import Verdict, unknown


class ParityLimits(Section):
    """By how much a probability may differ; no label may flip."""

    max_probability_difference: float = Field(gt=0)


def judge_parity(
    gate: str, difference: Difference | str | None, evidence: Evidence, limits: ParityLimits, compared: str
) -> Verdict:
    """`difference` is a sentence where the comparison failed, None where it was not made."""
    most = limits.max_probability_difference
    if difference is None:
        return unknown(gate, "difference", f"how far {compared} agree", evidence)
    if isinstance(difference, str):
        return Verdict(gate=gate, unit="difference", limit=f"{most:g}, no flip", outcome="failed", sentence=difference)
    agrees = difference.max_difference <= most and not difference.class_flips  # a NaN does not
    return Verdict(
        gate=gate,
        unit="difference",
        challenger=difference.max_difference,
        limit=f"{most:g}, no flip",
        outcome="passed" if agrees else "failed",
        sentence=f"{compared} differ by up to {difference.max_difference:.2g} on {difference.n:,} inputs, "
        f"at most {most:g} is allowed; {difference.class_flips} labels flip",
    )
