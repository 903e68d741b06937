"""Labels and probabilities -> calibration error, reliability plot, coverage of prediction sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import betabinom
from sklearn.metrics import log_loss

from convoy.bundles.bundle import Calibration, Sets
from convoy.bundles.conformal import prediction_sets, rank

BINS = 15  # of equal width, as in arXiv:1706.04599
BAND = 0.99  # of the coverages that chance gives


@dataclass(frozen=True)
class Reliability:
    """Per bin of the top label's probability: how many rows, their mean probability, the share that is right."""

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]  # 0 in an empty bin, as accuracy
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: how far confidence and accuracy of a bin are apart, averaged over rows."""
        return float(np.abs(self.confidence - self.accuracy) @ self.counts / self.counts.sum())


def reliability(labels: NDArray[np.int64], probabilities: NDArray[Any]) -> Reliability:
    """Bin labels (n,) and probabilities (n, labels)."""
    top = probabilities.max(axis=1).astype(np.float64)
    bins = np.minimum((top * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    right = probabilities.argmax(axis=1) == labels
    confidence, accuracy = (
        np.bincount(bins, weights=values, minlength=BINS) / np.maximum(counts, 1) for values in (top, right)
    )
    return Reliability(counts, confidence, accuracy)


def calibration_report(
    labels: NDArray[np.int64], before: NDArray[Any], after: NDArray[Any], calibration: Calibration
) -> dict[str, float | int]:
    """What the calibration changed: expected calibration error and log loss (nats) without and with it.

    The temperature and whether to restore the label frequencies were chosen on `fitted_n` rows, none of these `n`.
    """
    report: dict[str, float | int] = {
        "temperature": calibration.temperature,
        "frequencies_restored": calibration.offsets is not None,
        "fitted_n": calibration.n,
        "bins": BINS,
        "n": len(labels),
    }
    for name, probabilities in (("before", before), ("after", after)):
        exact = probabilities.astype(np.float64)
        exact /= exact.sum(axis=1, keepdims=True)
        report[f"ece_{name}"] = round(reliability(labels, exact).error, 6)
        report[f"log_loss_{name}"] = round(float(log_loss(labels, exact, labels=np.arange(exact.shape[1]))), 6)
    return report


def draw_reliability(labels: NDArray[np.int64], before: NDArray[Any], after: NDArray[Any], title: str) -> Figure:
    """Share of right answers by their probability, before and after the calibration, above the number of rows."""
    figure = Figure(figsize=(6, 7), layout="constrained")
    curve_axes, count_axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curve_axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="honest")
    edges = np.linspace(0, 1, BINS + 1)
    for name, probabilities, colour in (("before", before, "tab:orange"), ("after", after, "tab:blue")):
        binned = reliability(labels, probabilities)
        filled = binned.counts > 0
        caption = f"{name} calibration, error {binned.error:.4f}"
        curve_axes.plot(binned.confidence[filled], binned.accuracy[filled], marker="o", color=colour, label=caption)
        count_axes.stairs(binned.counts, edges, color=colour)
    curve_axes.set(ylabel="share that is right", title=f"{title}, n = {len(labels)}", ylim=(0, 1.02))
    curve_axes.legend(loc="upper left")
    count_axes.set(xlabel="probability of the label given", ylabel="rows", yscale="log", xlim=(0, 1))
    return figure


def coverage_band(n: int, calibration: int, coverage: float) -> tuple[float, float]:
    """Where the coverage of n rows lies in 99 % of all draws of them and of the calibration rows.

    It is beta-binomial (arXiv:2107.07511, appendix C): 1 and 1 where the calibration rows were too few.
    """
    covered = rank(calibration, coverage)
    if covered > calibration:
        return 1.0, 1.0
    chance = betabinom(n, covered, calibration + 1 - covered)
    low, high = chance.ppf([(1 - BAND) / 2, (1 + BAND) / 2]) / n
    return float(low), float(high)


def sets_report(
    labels: NDArray[np.int64], probabilities: NDArray[Any], sets: Sets, names: Sequence[str]
) -> dict[str, Any]:
    """How often sets hold the true label and how large they are, for all rows and for the rows of each label.

    `low` is the least coverage that chance allows, and `reached` is whether the sets have it: for all rows together,
    or with a threshold per label for each label. `below_threshold` is the share of rows whose most likely label is in
    the set only because it always is.
    """
    members = prediction_sets(probabilities, sets.threshold)
    below = probabilities.max(axis=1) < np.broadcast_to(sets.threshold, len(names))[probabilities.argmax(axis=1)]
    groups = {name: labels == label for label, name in enumerate(names)}
    calibrated = dict(zip(names, sets.n_per_label or (), strict=False))
    promised = None if calibrated else sets.n
    return {
        "target": sets.coverage,
        **_coverage_report(labels, members, sets.coverage, promised),
        "fitted_n": sets.n,
        "single": round(float((members.sum(axis=1) == 1).mean()), 6),
        "below_threshold": round(float(below.mean()), 6),
        "per_label": {
            name: _coverage_report(labels[group], members[group], sets.coverage, calibrated.get(name))
            for name, group in groups.items()
            if group.any()
        },
    }


def _coverage_report(
    labels: NDArray[np.int64], members: NDArray[np.bool_], coverage: float, calibrated: int | None
) -> dict[str, float | int]:
    """Coverage and mean size of sets (n, labels); `low` and `reached` where `calibrated` rows gave the threshold."""
    covered = float(members[np.arange(len(labels)), labels].mean())
    report = {"coverage": round(covered, 6), "n": len(labels), "mean_size": round(float(members.sum(axis=1).mean()), 4)}
    if calibrated is not None:
        low = coverage_band(len(labels), calibrated, coverage)[0]
        report |= {"low": round(low, 6), "reached": covered >= low}
    return report
