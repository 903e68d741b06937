"""Labels and probabilities, before and after the calibration -> calibration error and the reliability plot."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from convoy.bundles.bundle import Calibration

BINS = 15  # of equal width, as in arXiv:1706.04599


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
