"""Prediction sets of labelled rows -> their coverage, the band that chance allows it, and how large they are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from convoy.bundle import Sets
from convoy.conformal import prediction_sets, rank

BAND = 0.99  # of the coverages that chance gives


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


def sets_report(labels: NDArray[np.int64], probabilities: NDArray[Any], sets: Sets) -> dict[str, Any]:
    """Coverage with its target and its band, mean size, and the shares of empty sets and of single labels."""
    chosen = prediction_sets(probabilities, sets.threshold)
    coverage = float(chosen[np.arange(len(labels)), labels].mean())
    sizes = chosen.sum(axis=1)
    low, high = coverage_band(len(labels), sets.n, sets.coverage)
    return {
        "target": sets.coverage,
        "coverage": round(coverage, 6),
        "n": len(labels),
        "low": round(low, 6),
        "high": round(high, 6),
        "inside": low <= coverage <= high,
        "mean_size": round(float(sizes.mean()), 4),
        "empty": round(float((sizes == 0).mean()), 6),
        "single": round(float((sizes == 1).mean()), 6),
    }
