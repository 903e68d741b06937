"""Evidence and limits -> a verdict for each gate, with the reason in plain words; a pure function."""

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
    """One gate: what was measured of champion and challenger in `unit`, the limit, and the outcome.

    undecided: it could not be measured or must not be compared, and a person has to decide.
    """

    gate: str
    unit: Unit
    champion: float | None = None
    challenger: float | None = None
    limit: str
    outcome: Outcome
    sentence: str


def judge(evidence: Evidence, limits: PublishParams) -> list[Verdict]:
    """The verdicts of all gates; those that compare are left out where there is no champion."""
    comparisons = [*_judge_comparisons(evidence, limits)] if evidence.has_champion else []
    return [*comparisons, *_judge_challenger(evidence, limits)]


def outcome_of(verdicts: list[Verdict]) -> Outcome:
    """`failed` where one gate failed, else `undecided` where one is undecided."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return "failed" if "failed" in outcomes else "undecided" if "undecided" in outcomes else "passed"


def _judge_comparisons(evidence: Evidence, limits: PublishParams) -> Iterator[Verdict]:
    pair, rise, obstacle = evidence.paired, evidence.log_loss_rise, evidence.obstacle
    if obstacle or pair is None or rise is None:
        yield _not_comparable(evidence)
    else:
        yield _paired_test(pair, limits.significance)
        yield _accuracy(pair, evidence.best_accuracy, limits.min_accuracy_difference)
        yield _slices(evidence.slices, limits)
        yield _log_loss(evidence, rise, limits.max_log_loss_rise)
    yield _latency(evidence, limits.max_latency_ratio)


def _judge_challenger(evidence: Evidence, limits: PublishParams) -> Iterator[Verdict]:
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
    power = _detectable_drop(pair, significance)
    return Verdict(
        gate="paired test",
        unit="share",
        champion=pair.champion,
        challenger=pair.challenger,
        limit=f"p >= {significance:g}, or better",
        outcome="failed" if failed else "passed",
        sentence=f"it is worse by {_as_points(-pair.difference)}, and not by chance: {counts}"
        if failed
        else f"it is not worse than chance explains: {counts}; {power}",
    )


def _detectable_drop(pair: Pair, significance: float) -> str:
    drop = detectable_drop(pair.rows, pair.wins + pair.losses, significance)
    if drop > 1:
        return "no drop would be found with so few rows"
    return f"a true drop of {_as_points(drop)} would be found in {POWER:.0%} of cases"


def _accuracy(pair: Pair, best: Best | None, least: float) -> Verdict:
    """Compare the figures without an interval, which would refuse most equal models or pass most worse ones.

    The challenger is also compared with the best earlier champion, so that many allowed drops do not add up; a gain
    that is required over the champion is not required over that one.
    """
    change = f"{_as_points(abs(pair.difference))} {'worse' if pair.difference < 0 else 'better'}"
    requirement = (
        f"at most {_as_points(-least)} worse is allowed" if least <= 0 else f"{_as_points(least)} better is asked for"
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
        f"{_as_points(step / 2)} would pass in {passes(step / 2):.0%}, "
        f"by {_as_points(2 * step)} in {passes(2 * step):.0%}"
    )


def _slices(slices: tuple[Slice, ...], limits: PublishParams) -> Verdict:
    """A slice fails where it is worse by more than the margin, and by more than chance.

    The significance is divided among the slices (Bonferroni), so that none of many fails by chance; a slice with too
    few rows to be significant is not judged.
    """
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
        sentence += f"; at most {_as_points(limits.max_slice_drop)} is allowed"
    elif worst is None:
        sentence = "no class or slice has enough rows to tell"
    else:
        sentence = f"no class or slice is worse by more than chance and {_as_points(limits.max_slice_drop)}{small}; "
        sentence += f"the worst is {_describe_slice(worst)}, where {_detectable_drop(worst, significance)}"
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
    latency = evidence.latency
    if latency is None:
        return _unknown("latency", "ms", "the latency ratio", evidence)
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


def _calibration(challenger: Alone, champion: Alone | None, most: float) -> Verdict:
    """Fail above the margin plus chance: the measured error is at most the true error and chance together.

    So about one in 100 models whose true error is the margin is refused, or fewer, however few the rows are.
    """
    error, chance = challenger.calibration_error, challenger.calibration_by_chance
    return Verdict(
        gate="calibration",
        unit="share",
        champion=champion.calibration_error if champion else None,
        challenger=error,
        limit=f"{(most + chance) * 100:.2f} points",
        outcome="passed" if error <= most + chance else "failed",
        sentence=f"its probabilities are off by {_as_points(error)} on average, {_as_points(most)} is allowed, "
        f"and chance adds up to {_as_points(chance)} with as many rows",
    )


def _agreement(
    gate: str, difference: Difference | str | None, evidence: Evidence, limits: PublishParams, compared: str
) -> Verdict:
    most = limits.max_probability_difference
    if difference is None:
        return _unknown(gate, "difference", f"how far {compared} agree", evidence)
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
    violations = evidence.preflight
    if violations is None:
        return _unknown(PREFLIGHT, "count", "what its data is like", evidence)
    return Verdict(
        gate=PREFLIGHT,
        unit="count",
        challenger=len(violations),
        limit="nothing",
        outcome="failed" if violations else "passed",
        sentence="; ".join(violations) if violations else "its data keeps all limits of preparation",
    )


def _unknown(gate: str, unit: Unit, what: str, evidence: Evidence) -> Verdict:
    why = evidence.unknown.get(gate) or evidence.obstacle or evidence.unknown.get(GATE) or "it was not measured"
    return Verdict(gate=gate, unit=unit, limit="", outcome="undecided", sentence=f"{what} cannot be told: {why}")


def _not_comparable(evidence: Evidence) -> Verdict:
    """One verdict for accuracy, classes, slices and log loss: all need rows that neither model has learnt from."""
    pair, why = evidence.paired, evidence.obstacle or evidence.unknown.get(GATE, "it was not measured")
    figures = f" (as far as it goes: {pair.challenger:.2%} against {pair.champion:.2%} right)" if pair else ""
    return Verdict(
        gate="comparison",
        unit="share",
        champion=pair.champion if pair else None,
        challenger=evidence.challenger.accuracy if evidence.challenger else None,
        limit="same data and labels",
        outcome="undecided",
        sentence=f"it cannot be said whether it is better than the champion: {why}{figures}; accuracy, classes, slices "
        "and log loss are not compared, the rest is judged",
    )


def _as_points(share: float) -> str:
    return f"{share * 100:.2f} points"
