"""Evidence and limits -> for each gate whether it is passed, and by how much, in plain words; a pure function."""

from collections.abc import Iterator
from typing import Literal

from scipy.stats import norm

from convoy.evaluation.significance import POWER, detectable_drop, fewest_losses, pass_rate
from convoy.release.gates.evidence import (
    GATE,
    ONNX,
    PREFLIGHT,
    REST,
    Alone,
    Best,
    Difference,
    Evidence,
    LogLossRise,
    Measured,
    Pair,
    PublishParams,
    Slice,
)

NAMED = 3  # slices of those that failed; the report has all

Outcome = Literal["passed", "failed", "undecided"]
Unit = Literal["share", "nats", "difference", "bytes", "ms", "count"]


class Verdict(Measured):
    """One gate: what was measured of champion and challenger in `unit`, what is asked for, and what comes of it.

    undecided: it could not be measured, or must not be compared, and a person has to decide.
    """

    gate: str
    unit: Unit
    champion: float | None = None
    challenger: float | None = None
    limit: str
    outcome: Outcome
    sentence: str


def judge(evidence: Evidence, limits: PublishParams) -> list[Verdict]:
    """Every gate in turn; those that compare are left out where there is no champion."""
    found = [*_compared(evidence, limits)] if evidence.has_champion else []
    return [*found, *_absolute(evidence, limits)]


def outcome_of(verdicts: list[Verdict]) -> Outcome:
    """One that failed decides; else one that is undecided asks for a person."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return "failed" if "failed" in outcomes else "undecided" if "undecided" in outcomes else "passed"


def _compared(evidence: Evidence, limits: PublishParams) -> Iterator[Verdict]:
    pair, rise, obstacle = evidence.paired, evidence.log_loss_rise, evidence.obstacle
    if obstacle or pair is None or rise is None:
        yield _not_comparable(evidence)
    else:
        yield _paired_test(pair, limits.significance)
        yield _accuracy(pair, evidence.best_accuracy, limits.min_accuracy_difference)
        yield _slices(evidence.slices, limits)
        yield _log_loss(evidence, rise, limits.max_log_loss_rise)
    yield _latency(evidence, limits.max_latency_ratio)


def _absolute(evidence: Evidence, limits: PublishParams) -> Iterator[Verdict]:
    if evidence.challenger is None:
        yield _unknown(GATE, "share", "its answers", evidence)
    else:
        yield _calibration(evidence.challenger, evidence.champion, limits.max_calibration_error)
    yield _agreement(ONNX, evidence.onnx, evidence, limits, "torch and ONNX Runtime")
    if limits.rest_rows:
        yield _agreement(REST, evidence.rest, evidence, limits, "the service and the bundle")
    yield _size(evidence, limits.max_bundle_bytes)
    yield _preflight(evidence)


def _paired_test(pair: Pair, significance: float) -> Verdict:
    failed = pair.losses > pair.wins and pair.p < significance
    counts = (
        f"of {pair.rows:,} rows it alone has {pair.wins} right, the champion alone {pair.losses} (p = {pair.p:.2g})"
    )
    finds = _finds(pair, significance)
    return Verdict(
        gate="paired test",
        unit="share",
        champion=pair.champion,
        challenger=pair.challenger,
        limit=f"p >= {significance:g}, or better",
        outcome="failed" if failed else "passed",
        sentence=f"it is worse by {_points(-pair.difference)}, and not by chance: {counts}"
        if failed
        else f"it is not worse than chance explains: {counts}; {finds}",
    )


def _finds(pair: Pair, significance: float) -> str:
    drop = detectable_drop(pair.rows, pair.wins + pair.losses, significance)
    if drop > 1:
        return "no drop would be found with so few rows"
    return f"a true drop of {_points(drop)} would be found in {POWER:.0%} of cases"


def _accuracy(pair: Pair, best: Best | None, least: float) -> Verdict:
    """By the figures as they are: an interval would refuse most equal models, or let most worse ones pass.

    So that many small drops, each allowed, do not add up, the best champion before is a measure too; a gain that is
    demanded over the champion is not demanded over it.
    """
    worse = f"{_points(abs(pair.difference))} {'worse' if pair.difference < 0 else 'better'}"
    asked = f"at most {_points(-least)} worse is allowed" if least <= 0 else f"{_points(least)} better is asked for"
    far_below = best is not None and pair.challenger < best.value + min(least, 0) - 1e-12
    before = f"; the best champion before, version {best.version}, had {best.value:.2%}" if best else ""
    return Verdict(
        gate="accuracy",
        unit="share",
        champion=pair.champion,
        challenger=pair.challenger,
        limit=f"{least * 100:+g} points",
        outcome="passed" if pair.difference >= least - 1e-12 and not far_below else "failed",
        sentence=f"its accuracy is {pair.challenger:.2%}, the champion's {pair.champion:.2%}: {worse}, {asked}{before}"
        f"; {_error_rates(pair, least)}",
    )


def _error_rates(pair: Pair, least: float) -> str:
    """How often this comparison of two figures errs, at so many rows and disagreements."""
    step = abs(least) or 0.01

    def passes(drop: float) -> float:
        return pass_rate(pair.rows, pair.wins + pair.losses, drop, least)

    return (
        f"an equal model would be refused in {1 - passes(0):.0%} of cases, one that is truly worse by "
        f"{_points(step / 2)} would pass in {passes(step / 2):.0%}, by {_points(2 * step)} in {passes(2 * step):.0%}"
    )


def _slices(slices: tuple[Slice, ...], limits: PublishParams) -> Verdict:
    """A slice fails where it is worse by more than the margin, and by more than chance.

    The significance is shared among the slices (Bonferroni), so that many small ones do not fail one by chance; one
    of fewer rows than could be significant is not judged.
    """
    each = limits.significance / max(len(slices), 1)
    judged = [one for one in slices if one.rows >= fewest_losses(each)]
    failed = [one for one in judged if -one.difference > limits.max_slice_drop + 1e-12 and one.p < each]
    worst = min(judged, key=lambda one: one.difference, default=None)
    small = f"; {len(slices) - len(judged)} have too few rows to tell" if len(judged) < len(slices) else ""
    if failed:
        told = sorted(failed, key=lambda one: one.difference)
        sentence = "it is worse, and not by chance, in " + "; ".join(_told(one) for one in told[:NAMED])
        sentence += f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        sentence += f"; at most {_points(limits.max_slice_drop)} is allowed"
    elif worst is None:
        sentence = "no class or slice has enough rows to tell"
    else:
        sentence = f"no class or slice is worse by more than chance and {_points(limits.max_slice_drop)}{small}; "
        sentence += f"the worst is {_told(worst)}, where {_finds(worst, each)}"
    return Verdict(
        gate="classes and slices",
        unit="share",
        champion=worst.champion if worst else None,
        challenger=worst.challenger if worst else None,
        limit=f"{-limits.max_slice_drop * 100:+g} points",
        outcome="failed" if failed else "passed",
        sentence=sentence,
    )


def _told(one: Slice) -> str:
    name = one.name if one.kind == "class" else f"{one.kind} {one.name}"
    return f"{name}: {one.challenger:.1%} against {one.champion:.1%} (n = {one.rows:,}, p = {one.p:.2g})"


def _log_loss(evidence: Evidence, rise: LogLossRise, most: float) -> Verdict:
    """By the mean as it is, and against the best champion before, as the accuracy is."""
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
        + _log_loss_error_rates(rise, most),
    )


def _log_loss_error_rates(rise: LogLossRise, most: float) -> str:
    """How often the mean of so many rows errs, by its standard error."""
    error = max((rise.high - rise.low) / (2 * norm.ppf(0.975)), 1e-12)
    worse = 2 * most or 2 * error
    refused, passed = norm.sf(most / error), norm.cdf((most - worse) / error)
    return (
        f"an equal model would be refused in {refused:.0%} of cases, one that is truly worse by {worse:.3g} would pass "
        f"in {passed:.0%}"
    )


def _latency(evidence: Evidence, most: float) -> Verdict:
    found = evidence.latency
    if found is None:
        return _unknown("latency", "ms", "the latency ratio", evidence)
    return Verdict(
        gate="latency",
        unit="ms",
        champion=found.champion_ms,
        challenger=found.challenger_ms,
        limit=f"{most:g} times",
        outcome="passed" if found.ratio <= most else "failed",
        sentence=f"an answer takes {found.ratio:.2f} times as long as the champion's (95 %: {found.low:.2f} to "
        f"{found.high:.2f}, {found.pairs} pairs in turns), at most {most:g} times is allowed",
    )


def _calibration(challenger: Alone, champion: Alone | None, most: float) -> Verdict:
    """More than the margin and what chance adds to it: what is measured is at most what is true and chance together.

    So of models whose true error is the margin about one in 100 is refused, or fewer, however few the rows are.
    """
    error, chance = challenger.calibration_error, challenger.calibration_by_chance
    return Verdict(
        gate="calibration",
        unit="share",
        champion=champion.calibration_error if champion else None,
        challenger=error,
        limit=f"{(most + chance) * 100:.2f} points",
        outcome="passed" if error <= most + chance else "failed",
        sentence=f"its probabilities are off by {_points(error)} on average, {_points(most)} is allowed, and chance "
        f"adds up to {_points(chance)} with as many rows",
    )


def _agreement(
    gate: str, found: Difference | str | None, evidence: Evidence, limits: PublishParams, of: str
) -> Verdict:
    most = limits.max_probability_difference
    if found is None:
        return _unknown(gate, "difference", f"how far {of} agree", evidence)
    if isinstance(found, str):
        return Verdict(gate=gate, unit="difference", limit=f"{most:g}, no flip", outcome="failed", sentence=found)
    agrees = found.max_difference <= most and not found.class_flips  # a NaN does not
    return Verdict(
        gate=gate,
        unit="difference",
        challenger=found.max_difference,
        limit=f"{most:g}, no flip",
        outcome="passed" if agrees else "failed",
        sentence=f"{of} differ by up to {found.max_difference:.2g} on {found.n:,} inputs, at most {most:g} is allowed; "
        f"{found.class_flips} labels flip",
    )


def _size(evidence: Evidence, most: int) -> Verdict:
    size = evidence.size_bytes
    return Verdict(
        gate="bundle size",
        unit="bytes",
        champion=evidence.champion_size_bytes,
        challenger=size,
        limit=f"{most / 1e6:g} MB",
        outcome="passed" if size <= most else "failed",
        sentence=f"its bundle has {size / 1e6:.2f} MB, at most {most / 1e6:g} is allowed",
    )


def _preflight(evidence: Evidence) -> Verdict:
    found = evidence.preflight
    if found is None:
        return _unknown(PREFLIGHT, "count", "what its data is like", evidence)
    return Verdict(
        gate=PREFLIGHT,
        unit="count",
        challenger=len(found),
        limit="nothing",
        outcome="failed" if found else "passed",
        sentence="; ".join(found) if found else "its data keeps all limits of preparation",
    )


def _unknown(gate: str, unit: Unit, what: str, evidence: Evidence) -> Verdict:
    why = evidence.unknown.get(gate) or evidence.obstacle or evidence.unknown.get(GATE) or "it was not measured"
    return Verdict(gate=gate, unit=unit, limit="", outcome="undecided", sentence=f"{what} cannot be told: {why}")


def _not_comparable(evidence: Evidence) -> Verdict:
    """Accuracy, classes, slices and log loss in one: all hang on both having been asked what neither knew."""
    pair, why = evidence.paired, evidence.obstacle or evidence.unknown.get(GATE, "it was not measured")
    shown = f" (as far as it goes: {pair.challenger:.2%} against {pair.champion:.2%} right)" if pair else ""
    return Verdict(
        gate="comparison",
        unit="share",
        champion=pair.champion if pair else None,
        challenger=evidence.challenger.accuracy if evidence.challenger else None,
        limit="same data and labels",
        outcome="undecided",
        sentence=f"it cannot be said whether it is better than the champion: {why}{shown}; accuracy, classes, slices "
        "and log loss are not compared, the rest is judged",
    )


def _points(share: float) -> str:
    return f"{share * 100:.2f} points"
