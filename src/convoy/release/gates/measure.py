"""A challenger's bundle, the champion's and the gate split -> the evidence: both predict every row, and are timed."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from tqdm import tqdm

from convoy.bundles.bundle import BundleInvalid, Card
from convoy.bundles.predictor import Model
from convoy.core.process import usable_cores
from convoy.core.rejection import InputRejected
from convoy.evaluation import metrics
from convoy.evaluation.metrics import classification_metrics
from convoy.evaluation.reliability import reliability
from convoy.evaluation.significance import mcnemar, paired_p
from convoy.release.gates import rest_parity
from convoy.release.gates.evidence import (
    REST,
    Alone,
    Difference,
    Evidence,
    Latency,
    LogLossRise,
    Pair,
    Slice,
)
from convoy.release.gates.registry import GATES, PublishParams, name_of
from convoy.release.gates.split import GateSplit, kind_and_values
from convoy.tracking.checked_bundle import CheckedBundle

WARM_UP = 5  # calls of each that are not counted
CHUNK = 256  # rows between two steps of the progress bar
DRAWS = 500  # of labels, to estimate the calibration error of chance alone


def compare_latency(champion: Model, challenger: Model, inputs: Sequence[bytes | str], pairs: int) -> Latency:
    """Time both on the same input, one right after the other, and who begins alternates.

    What slows the machine for a while slows both calls of a pair, so the ratio stays; its median is robust to the
    pairs that were interrupted. The interval is that of order statistics, which assumes nothing of the times.
    """
    for model in (champion, challenger):
        for raw in inputs[:WARM_UP]:
            _predict_one(model, raw)
    times = np.empty((pairs, 2))
    for pair in range(pairs):
        raw = inputs[pair % len(inputs)]
        order = ((0, champion), (1, challenger))
        for side, model in order if pair % 2 else reversed(order):
            began = time.perf_counter()
            _predict_one(model, raw)
            times[pair, side] = time.perf_counter() - began
    ratios = np.sort(times[:, 1] / times[:, 0])
    outside = int(binom.ppf(0.025, pairs, 0.5))
    champion_s, challenger_s = np.median(times, axis=0)
    return Latency(
        pairs=pairs,
        champion_ms=round(float(champion_s) * 1000, 4),
        challenger_ms=round(float(challenger_s) * 1000, 4),
        ratio=round(float(np.median(ratios)), 4),
        low=round(float(ratios[max(outside - 1, 0)]), 4),
        high=round(float(ratios[min(pairs - outside, pairs - 1)]), 4),
    )


def _predict_one(model: Model, raw: bytes | str) -> None:
    model.probabilities([model.prepare(raw).array])


@dataclass(frozen=True)
class Answers:
    """The answers of one bundle: prepared gate rows, and probabilities (n, labels) float64 that sum to 1."""

    model: Model
    arrays: list[NDArray[Any]]
    probabilities: NDArray[np.float64]

    def correct(self, gate: GateSplit) -> NDArray[np.bool_]:
        """Which rows are right, (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == gate.labels)


@dataclass(frozen=True)
class Comparison:
    """What a gate's own `measure` is given: the gate split, the challenger's answers, both bundles."""

    gate: GateSplit
    ours: Answers
    challenger: CheckedBundle
    champion: CheckedBundle | None


def measure(
    gate: GateSplit,
    challenger: CheckedBundle,
    champion: CheckedBundle | None,
    limits: PublishParams,
    recorded: dict[str, Any],
) -> Evidence:
    """Measure all that the gates need. `recorded` is from the build: onnx, preflight and unknown of Evidence.

    Raises BundleInvalid where the challenger cannot be loaded.
    """
    model = Model(challenger.card, challenger.files)
    unknown: dict[str, str] = dict(recorded.get("unknown", {}))
    fields: dict[str, Any] = {**recorded, "size_bytes": challenger.size, "unknown": unknown}
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:  # the service starts while the rows are predicted
        service = pool.submit(stack.enter_context, rest_parity.run_service(challenger)) if limits.rest_rows else None
        ours = _predict_rows(model, gate, "challenger")
        try:
            if service is not None:
                fields["rest"] = _compare_over_http(gate, model, service.result(), limits.rest_rows)
        except rest_parity.AnswerRefused as error:
            fields["rest"] = str(error)
        except rest_parity.ServiceUnavailable as error:
            unknown[REST] = str(error)
    fields["challenger"] = _measure_alone(ours, gate)
    if champion is not None:
        fields |= _measure_against(gate, ours, champion, limits)
    fields["measured"] = _measured_by_gates(Comparison(gate, ours, challenger, champion), limits)
    return Evidence(rows=len(gate.labels), has_champion=champion is not None, **fields)


def _measured_by_gates(comparison: Comparison, limits: PublishParams) -> dict[str, Any]:
    return {name_of(gate): gate.measure(comparison, limits) for gate in GATES if hasattr(gate, "measure")}


def _predict_rows(model: Model, gate: GateSplit, name: str) -> Answers:
    """Prepare and predict all rows. Raises InputRejected for a row that this bundle's contract does not allow."""
    arrays = [model.prepare(raw).array for raw in tqdm(gate.raw, f"{gate.task}: {name} prepares", disable=None)]
    chunks = [arrays[start : start + CHUNK] for start in range(0, len(arrays), CHUNK)]
    with ThreadPoolExecutor(usable_cores()) as pool:  # each row's answer is the same whatever runs beside it
        parts = pool.map(model.probabilities, chunks)
        shown = tqdm(parts, f"{gate.task}: {name} answers", len(chunks), unit=f" x {CHUNK}", disable=None)
        probabilities = np.concatenate(list(shown)).astype(np.float64)
    return Answers(model, arrays, probabilities / probabilities.sum(axis=1, keepdims=True))


def _measure_alone(answers: Answers, gate: GateSplit) -> Alone:
    figures = classification_metrics(gate.labels, answers.probabilities)
    return Alone(
        **{name: figures[name] for name in ("accuracy", "low", "high", "log_loss")},
        calibration_error=round(reliability(gate.labels, answers.probabilities).error, 6),
        calibration_by_chance=round(error_by_chance(answers.probabilities), 6),
    )


def error_by_chance(probabilities: NDArray[np.float64]) -> float:
    """The 99 % quantile of the calibration error where each row is right as often as it says (Broecker and Smith 2007).

    probabilities: (rows, labels).
    """
    generator = np.random.default_rng(0)
    top, best = probabilities.max(axis=1), probabilities.argmax(axis=1)
    second = (best + 1) % probabilities.shape[1]
    errors = [
        reliability(np.where(generator.random(len(top)) < top, best, second), probabilities).error for _ in range(DRAWS)
    ]
    return float(np.quantile(errors, 0.99))


def _measure_against(gate: GateSplit, ours: Answers, champion: CheckedBundle, limits: PublishParams) -> dict[str, Any]:
    """The fields that need both bundles; where the champion cannot predict, why."""
    try:
        model = Model(champion.card, champion.files)
        theirs = _predict_rows(model, gate, "champion")
    except BundleInvalid as error:
        return {"obstacle": f"the champion's bundle cannot be loaded: {error}"}
    except InputRejected as error:
        return {"obstacle": f"the champion's contract refuses a row of the gate split: {error}"}
    fields: dict[str, Any] = {
        "champion_size_bytes": champion.size,
        "obstacle": obstacle(ours.model.card, model.card),
        "latency": compare_latency(model, ours.model, gate.spread(limits.latency_pairs), limits.latency_pairs),
    }
    if model.card.labels != ours.model.card.labels:
        return fields
    is_right, is_champion_right = ours.correct(gate), theirs.correct(gate)
    test = mcnemar(is_right, is_champion_right)
    return fields | {
        "champion": _measure_alone(theirs, gate),
        "paired": Pair(
            rows=len(is_right),
            champion=round(float(is_champion_right.mean()), 6),
            challenger=round(float(is_right.mean()), 6),
            **{name: test[name] for name in ("wins", "losses", "p")},
        ),
        "slices": _slices(gate, ours, is_right, is_champion_right),
        "log_loss_rise": _log_loss_rise(gate, ours, theirs),
    }


def obstacle(challenger: Card, champion: Card) -> str:
    """Why predictions on the gate split cannot tell which is better; empty where they can."""
    if set(challenger.labels) != set(champion.labels):
        new = ", ".join(sorted(set(challenger.labels) - set(champion.labels)))
        gone = ", ".join(sorted(set(champion.labels) - set(challenger.labels)))
        return f"it knows other labels than the champion ({new or 'none'} new, {gone or 'none'} gone)"
    changed_splits = [
        split for split in challenger.data | champion.data if challenger.data.get(split) != champion.data.get(split)
    ]
    if changed_splits or challenger.labels != champion.labels:
        return (
            f"it was built on other data than the champion ({', '.join(changed_splits) or 'the order of labels'}), "
            "which may have learnt from rows of this gate split"
        )
    return ""


def _slices(
    gate: GateSplit, ours: Answers, is_right: NDArray[np.bool_], is_champion_right: NDArray[np.bool_]
) -> tuple[Slice, ...]:
    kind, values = kind_and_values(ours.model, gate)
    marks = {
        "champion": is_champion_right,
        "challenger": is_right,
        "wins": is_right & ~is_champion_right,
        "losses": is_champion_right & ~is_right,
    }
    parts = {
        "class": {name: metrics.per_class(gate.labels, mark, gate.names) for name, mark in marks.items()},
        kind: {name: metrics.per_quartile(values, mark) for name, mark in marks.items()},
    }
    return tuple(
        _slice(kind, group, {name: groups[group] for name, groups in shares.items()})
        for kind, shares in parts.items()
        for group in shares["champion"]
    )


def _slice(kind: str, name: str, shares: dict[str, dict[str, Any]]) -> Slice:
    """A slice by the shares of each mark from evaluation.metrics; their six digits give exact counts."""
    rows = int(shares["champion"]["n"])
    wins, losses = (round(shares[mark]["accuracy"] * rows) for mark in ("wins", "losses"))
    champion_share = shares["champion"]
    return Slice(
        kind=kind,
        name=f"{name} ({champion_share['from']:g} to {champion_share['to']:g})" if "from" in champion_share else name,
        rows=rows,
        champion=champion_share["accuracy"],
        challenger=shares["challenger"]["accuracy"],
        wins=wins,
        losses=losses,
        p=paired_p(wins, losses),
    )


def _log_loss_rise(gate: GateSplit, ours: Answers, theirs: Answers) -> LogLossRise:
    """Row by row; a probability of 0 counts as in scikit-learn's log_loss."""
    rows, least = np.arange(len(gate.labels)), np.finfo(np.float64).eps
    ours_log, theirs_log = (
        np.log(np.maximum(answers.probabilities[rows, gate.labels], least)) for answers in (ours, theirs)
    )
    rises = theirs_log - ours_log
    margin = 1.96 * float(rises.std()) / len(rises) ** 0.5
    mean = float(rises.mean())
    return LogLossRise(mean=round(mean, 6), low=round(mean - margin, 6), high=round(mean + margin, 6))


def _compare_over_http(gate: GateSplit, model: Model, url: str, count: int) -> Difference:
    inputs = gate.spread(count)
    expected = model.probabilities([model.prepare(raw).array for raw in inputs])
    served = rest_parity.predict(url, model.card, inputs)
    return Difference(
        max_difference=float(np.abs(served - expected).max()),
        class_flips=int((served.argmax(axis=1) != expected.argmax(axis=1)).sum()),
        n=len(inputs),
    )
