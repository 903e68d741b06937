"""Gate: the size of the challenger's bundle."""

from pydantic import Field

from convoy.core.params import Section
from convoy.release.gates.evidence import Evidence
from convoy.release.gates.verdict import Verdict

COMPARES = False


class Limits(Section):
    """The most bytes of all files."""

    max_bundle_bytes: int = Field(ge=1)


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """By the bytes of all its files."""
    size, most = evidence.size_bytes, limits.max_bundle_bytes
    return Verdict(
        gate="bundle size",
        unit="bytes",
        champion=evidence.champion_size_bytes,
        challenger=size,
        limit=f"{most / 1e6:g} MB",
        outcome="passed" if size <= most else "failed",
        sentence=f"its bundle has {size / 1e6:.2f} MB, at most {most / 1e6:g} is allowed",
    )
