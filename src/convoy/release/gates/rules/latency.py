"""Gate: the time of single answers, the challenger's against the champion's, in turns."""

from pydantic import Field

from convoy.core.params import Section
from convoy.release.gates.evidence import Evidence
from convoy.release.gates.verdict import Verdict, unknown

COMPARES = False  # bundles of other data are timed too


class Limits(Section):
    """How many pairs of answers are timed, and how many times the champion's time is allowed."""

    latency_pairs: int = Field(ge=5)
    max_latency_ratio: float = Field(gt=0)


def judge(evidence: Evidence, limits: Limits) -> Verdict | None:
    """None where there is no champion."""
    latency, most = evidence.latency, limits.max_latency_ratio
    if not evidence.has_champion:
        return None
    if latency is None:
        return unknown("latency", "ms", "the latency ratio", evidence)
    return Verdict(
        gate="latency",
        unit="ms",
        champion=latency.champion_ms,
        challenger=latency.challenger_ms,
        limit=f"{most:g} times",
        outcome="passed" if latency.ratio <= most else "failed",
        sentence=f"an answer takes {latency.ratio:.2f} times as long as the champion's (95 %: {latency.low:.2f} to "
        f"{latency.high:.2f}, {latency.pairs} pairs in turns), at most {most:g} times is allowed",
    )
