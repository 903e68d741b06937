"""Probabilities of labelled rows -> the least probability that puts a label into a prediction set; split conformal."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALL_LABELS = 0.0  # the threshold that every label passes


def rank(n: int, coverage: float) -> int:
    """How many of n calibration rows must be covered, ceil((n + 1) coverage), so that a new row is too on average.

    It is n + 1 where n rows are too few to promise this coverage.
    """
    return math.ceil((n + 1) * Fraction(str(coverage)))  # exact: floats would round 0.95 x 20 up or down


def fit_threshold(labels: NDArray[np.int64], probabilities: NDArray[Any], coverage: float) -> float:
    """The threshold whose sets hold the true label of a new row with this probability, whatever the model.

    For labels (n,) and probabilities (n, labels) that no choice was made by (least ambiguous sets: arXiv:1609.00451).
    It is ALL_LABELS where n is too small for the promise.
    """
    of_truth = np.sort(probabilities[np.arange(len(labels)), labels])[::-1]
    needed = rank(len(labels), coverage)
    return float(of_truth[needed - 1]) if needed <= len(labels) else ALL_LABELS


def prediction_sets(probabilities: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Which labels are likely enough, (n, labels); none may be, and then the row is unlike the calibration rows."""
    chosen: NDArray[np.bool_] = ~(probabilities < threshold)  # NaN is in: it must be seen, not end as an empty set
    return chosen
