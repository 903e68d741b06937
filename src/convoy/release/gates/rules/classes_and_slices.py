"""Gate: the accuracy on each class, and on each quartile of what rows differ in, such as length."""

from pydantic import Field

from convoy.core.params import Section
from convoy.evaluation.significance import fewest_losses
from convoy.release.gates.evidence import Evidence, Slice
from convoy.release.gates.verdict import Verdict, as_points, describe_power

COMPARES = True
NAMED = 3  # slices of those that failed; the report has all


class Limits(Section):
    """How much accuracy a slice may lose, and the significance of all slices together."""

    significance: float = Field(gt=0, lt=0.5)
    max_slice_drop: float = Field(ge=0, le=1)


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """A slice fails where it is worse by more than the margin, and by more than chance.

    The significance is divided among the slices (Bonferroni), so that none of many fails by chance; a slice with too
    few rows to be significant is not judged.
    """
    slices = evidence.slices
    significance = limits.significance / max(len(slices), 1)
    judged = [part for part in slices if part.rows >= fewest_losses(significance)]
    failed = [part for part in judged if -part.difference > limits.max_slice_drop + 1e-12 and part.p < significance]
    worst = min(judged, key=lambda part: part.difference, default=None)
    small = f"; {len(slices) - len(judged)} have too few rows to tell" if len(judged) < len(slices) else ""
    if failed:
        worst_first = sorted(failed, key=lambda part: part.difference)
        sentence = "it is worse, and not by chance, in " + "; ".join(
            _describe_slice(part) for part in worst_first[:NAMED]
        )
        sentence += f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        sentence += f"; at most {as_points(limits.max_slice_drop)} is allowed"
    elif worst is None:
        sentence = "no class or slice has enough rows to tell"
    else:
        sentence = f"no class or slice is worse by more than chance and {as_points(limits.max_slice_drop)}{small}; "
        sentence += f"the worst is {_describe_slice(worst)}, where {describe_power(worst, significance)}"
    return Verdict(
        gate="classes and slices",
        unit="share",
        champion=worst.champion if worst else None,
        challenger=worst.challenger if worst else None,
        limit=f"{-limits.max_slice_drop * 100:+g} points",
        outcome="failed" if failed else "passed",
        sentence=sentence,
    )


def _describe_slice(part: Slice) -> str:
    name = part.name if part.kind == "class" else f"{part.kind} {part.name}"
    return f"{name}: {part.challenger:.1%} against {part.champion:.1%} (n = {part.rows:,}, p = {part.p:.2g})"
