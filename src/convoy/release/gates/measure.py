"""A challenger's bundle, the champion's and the gate split -> the evidence: both answer every row, and are timed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from tqdm import tqdm

from convoy.bundles.bundle import BundleInvalid, Card, read_bundle
from convoy.bundles.predictor import Model, Predictor
from convoy.evaluation import metrics
from convoy.evaluation.metrics import classification_metrics
from convoy.evaluation.reliability import reliability
from convoy.evaluation.significance import mcnemar, paired_p
from convoy.kinds.kind import InputRejected
from convoy.release.gates import rest_parity
from convoy.release.gates.evidence import (
    REST,
    Alone,
    Difference,
    Evidence,
    Latency,
    LogLossRise,
    Pair,
    PublishParams,
    Slice,
)
from convoy.release.gates.split import GateSplit, kind_and_values

WARM_UP = 5  # calls of each that are not counted

CHUNK = 256  # rows between two steps of the progress bar
DRAWS = 500  # of labels, to learn what calibration error chance alone makes


def compare_latency(champion: Model, challenger: Model, inputs: Sequence[bytes | str], pairs: int) -> Latency:
    """Time both on the same input, one right after the other, and who begins alternates.

    What slows the machine for a while slows both calls of a pair, so the ratio stays; its median does not mind the
    pairs that something came between. The interval is that of order statistics, which assumes nothing of the times.
    """
    for model in (champion, challenger):
        for raw in inputs[:WARM_UP]:
            _answer_one(model, raw)
    times = np.empty((pairs, 2))
    for pair in range(pairs):
        raw = inputs[pair % len(inputs)]
        order = ((0, champion), (1, challenger))
        for side, model in order if pair % 2 else reversed(order):
            began = time.perf_counter()
            _answer_one(model, raw)
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


def _answer_one(model: Model, raw: bytes | str) -> None:
    model.probabilities([model.prepare(raw).array])


@dataclass(frozen=True)
class Answers:
    """What one bundle says of the gate split: prepared rows, and probabilities (n, labels) float64 that sum to 1."""

    model: Model
    arrays: list[NDArray[Any]]
    probabilities: NDArray[np.float64]

    def correct(self, gate: GateSplit) -> NDArray[np.bool_]:
        """Which rows are right, (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == gate.labels)


def measure(
    gate: GateSplit, challenger: Path, champion: Path | None, limits: PublishParams, recorded: dict[str, Any]
) -> Evidence:
    """Measure all that the gates ask for. `recorded` is what the build left: onnx, preflight and unknown of Evidence.

    Raises BundleInvalid where the challenger cannot be loaded.
    """
    ours = _answer(Predictor(challenger), gate, "challenger")
    unknown: dict[str, str] = dict(recorded.get("unknown", {}))
    found: dict[str, Any] = {**recorded, "challenger": _alone(ours, gate), "size_bytes": size_of(challenger)}
    if champion is not None:
        found |= _compare(gate, ours, champion, limits)
    if limits.rest_rows:
        try:
            found["rest"] = _over_http(gate, ours.model, challenger, limits.rest_rows)
        except rest_parity.AnswerRefused as error:
            found["rest"] = str(error)
        except rest_parity.ServiceUnavailable as error:
            unknown[REST] = str(error)
    found["unknown"] = unknown
    return Evidence(rows=len(gate.labels), has_champion=champion is not None, **found)


def size_of(folder: Path) -> int:
    """Bytes of all files of a bundle."""
    return sum(len(content) for content in read_bundle(folder).files.values())


def _answer(model: Predictor, gate: GateSplit, who: str) -> Answers:
    """Raises InputRejected for a row that this bundle's contract does not allow."""
    arrays = [model.prepare(raw).array for raw in tqdm(gate.raw, f"{gate.task}: {who} prepares", disable=None)]
    steps = tqdm(range(0, len(arrays), CHUNK), f"{gate.task}: {who} answers", unit=f" x {CHUNK}", disable=None)
    found = np.concatenate([model.probabilities(arrays[start : start + CHUNK]) for start in steps]).astype(np.float64)
    return Answers(model, arrays, found / found.sum(axis=1, keepdims=True))


def _alone(answers: Answers, gate: GateSplit) -> Alone:
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
    other = (best + 1) % probabilities.shape[1]
    errors = [
        reliability(np.where(generator.random(len(top)) < top, best, other), probabilities).error for _ in range(DRAWS)
    ]
    return float(np.quantile(errors, 0.99))


def _compare(gate: GateSplit, ours: Answers, champion: Path, limits: PublishParams) -> dict[str, Any]:
    """What needs both; where the champion cannot answer, why."""
    try:
        model = Predictor(champion)
        theirs = _answer(model, gate, "champion")
    except BundleInvalid as error:
        return {"obstacle": f"the champion's bundle cannot be loaded: {error}"}
    except InputRejected as error:
        return {"obstacle": f"the champion's contract refuses a row of the gate split: {error}"}
    found: dict[str, Any] = {
        "champion_size_bytes": size_of(champion),
        "obstacle": obstacle(ours.model.card, model.card),
        "latency": compare_latency(model, ours.model, gate.spread(limits.latency_pairs), limits.latency_pairs),
    }
    if model.card.labels != ours.model.card.labels:
        return found
    right, theirs_right = ours.correct(gate), theirs.correct(gate)
    test = mcnemar(right, theirs_right)
    return found | {
        "champion": _alone(theirs, gate),
        "paired": Pair(
            rows=len(right),
            champion=round(float(theirs_right.mean()), 6),
            challenger=round(float(right.mean()), 6),
            **{name: test[name] for name in ("wins", "losses", "p")},
        ),
        "slices": _slices(gate, ours, right, theirs_right),
        "log_loss_rise": _log_loss_rise(gate, ours, theirs),
    }


def obstacle(challenger: Card, champion: Card) -> str:
    """Why answers on the gate split say nothing of which is better; empty where they do."""
    if set(challenger.labels) != set(champion.labels):
        new, gone = (", ".join(sorted(set(a) - set(b))) for a, b in _both_ways(challenger.labels, champion.labels))
        return f"it knows other labels than the champion ({new or 'none'} new, {gone or 'none'} gone)"
    other = [
        split for split in challenger.data | champion.data if challenger.data.get(split) != champion.data.get(split)
    ]
    if other or challenger.labels != champion.labels:
        return (
            f"it was built on other data than the champion ({', '.join(other) or 'the order of labels'}), which may "
            "have learnt from rows of this gate split"
        )
    return ""


def _both_ways(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    return (one, other), (other, one)


def _slices(
    gate: GateSplit, ours: Answers, right: NDArray[np.bool_], theirs_right: NDArray[np.bool_]
) -> tuple[Slice, ...]:
    kind, values = kind_and_values(ours.model, gate, ours.arrays)
    marks = {
        "champion": theirs_right,
        "challenger": right,
        "wins": right & ~theirs_right,
        "losses": theirs_right & ~right,
    }
    parts = {
        "class": {name: metrics.per_class(gate.labels, mark, gate.names) for name, mark in marks.items()},
        kind: {name: metrics.per_quartile(values, mark) for name, mark in marks.items()},
    }
    return tuple(
        _slice(kind, group, {name: groups[group] for name, groups in found.items()})
        for kind, found in parts.items()
        for group in found["champion"]
    )


def _slice(kind: str, name: str, shares: dict[str, dict[str, Any]]) -> Slice:
    """A slice by the shares that convoy.slices gives of each mark, six digits, from which the counts are exact."""
    rows = int(shares["champion"]["n"])
    wins, losses = (round(shares[mark]["accuracy"] * rows) for mark in ("wins", "losses"))
    bounds = shares["champion"]
    return Slice(
        kind=kind,
        name=f"{name} ({bounds['from']:g} to {bounds['to']:g})" if "from" in bounds else name,
        rows=rows,
        champion=bounds["accuracy"],
        challenger=shares["challenger"]["accuracy"],
        wins=wins,
        losses=losses,
        p=paired_p(wins, losses),
    )


def _log_loss_rise(gate: GateSplit, ours: Answers, theirs: Answers) -> LogLossRise:
    """Row by row; a probability of 0 counts as scikit-learn's log_loss has it."""
    rows, least = np.arange(len(gate.labels)), np.finfo(np.float64).eps
    mine, other = (np.log(np.maximum(each.probabilities[rows, gate.labels], least)) for each in (ours, theirs))
    rises = other - mine
    side = 1.96 * float(rises.std()) / len(rises) ** 0.5
    mean = float(rises.mean())
    return LogLossRise(mean=round(mean, 6), low=round(mean - side, 6), high=round(mean + side, 6))


def _over_http(gate: GateSplit, model: Model, folder: Path, count: int) -> Difference:
    inputs = gate.spread(count)
    expected = model.probabilities([model.prepare(raw).array for raw in inputs])
    with rest_parity.serve(folder) as url:
        found = rest_parity.ask(url, model.card, inputs)
    return Difference(
        max_difference=float(np.abs(found - expected).max()),
        class_flips=int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
        n=len(inputs),
    )
