"""Labels and probabilities -> how far they can be trusted: calibration error, reliability plot, coverage of sets."""

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
        """The expected calibration error: how far the two are apart in a bin, averaged over rows."""
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

    `fitted_n` rows, others than these `n`, chose the temperature and whether the label frequencies were restored.
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
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="grey", linestyle=":", label="honest")
    edges = np.linspace(0, 1, BINS + 1)
    for name, probabilities, colour in (("before", before, "tab:orange"), ("after", after, "tab:blue")):
        found = reliability(labels, probabilities)
        filled = found.counts > 0
        caption = f"{name} calibration, error {found.error:.4f}"
        above.plot(found.confidence[filled], found.accuracy[filled], marker="o", color=colour, label=caption)
        below.stairs(found.counts, edges, color=colour)
    above.set(ylabel="share that is right", title=f"{title}, n = {len(labels)}", ylim=(0, 1.02))
    above.legend(loc="upper left")
    below.set(xlabel="probability of the label given", ylabel="rows", yscale="log", xlim=(0, 1))
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
    """How often sets hold the true label, how large they are, and the same of the rows of each label.

    `low` is the least coverage that chance allows, and `reached` is whether the sets have it: the promise is about all
    rows together, or with a threshold per label about each label. `below_threshold` is the share of rows whose most
    likely label is in the set only because it always is.
    """
    chosen = prediction_sets(probabilities, sets.threshold)
    below = probabilities.max(axis=1) < np.broadcast_to(sets.threshold, len(names))[probabilities.argmax(axis=1)]
    each = {name: labels == label for label, name in enumerate(names)}
    calibrated = dict(zip(names, sets.n_per_label or (), strict=False))
    promised = None if calibrated else sets.n
    return {
        "target": sets.coverage,
        **_covered(labels, chosen, sets.coverage, promised),
        "fitted_n": sets.n,
        "single": round(float((chosen.sum(axis=1) == 1).mean()), 6),
        "below_threshold": round(float(below.mean()), 6),
        "per_label": {
            name: _covered(labels[rows], chosen[rows], sets.coverage, calibrated.get(name))
            for name, rows in each.items()
            if rows.any()
        },
    }


def _covered(
    labels: NDArray[np.int64], chosen: NDArray[np.bool_], coverage: float, calibrated: int | None
) -> dict[str, float | int]:
    """Coverage and mean size of sets (n, labels); `low` and `reached` where `calibrated` rows promise the coverage."""
    found = float(chosen[np.arange(len(labels)), labels].mean())
    report = {"coverage": round(found, 6), "n": len(labels), "mean_size": round(float(chosen.sum(axis=1).mean()), 4)}
    if calibrated is not None:
        low = coverage_band(len(labels), calibrated, coverage)[0]
        report |= {"low": round(low, 6), "reached": found >= low}
    return report
