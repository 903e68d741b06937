"""Probabilities of labelled rows -> the least probability that puts a label into a prediction set: split conformal."""

import math
from collections.abc import Sequence
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
    of_true_labels = np.sort(probabilities[np.arange(len(labels)), labels])[::-1]
    needed = rank(len(labels), coverage)
    return float(of_true_labels[needed - 1]) if needed <= len(labels) else ALL_LABELS


def fit_thresholds(labels: NDArray[np.int64], probabilities: NDArray[Any], coverage: float) -> tuple[float, ...]:
    """One threshold per label, fitted on the rows of that label alone: the coverage then holds for each label.

    Class-conditional conformal prediction (Vovk 2012, "Conditional validity of inductive conformal predictors";
    arXiv:2306.09335). A label with too few rows has ALL_LABELS: it is in every set.
    """
    rows_by_label = [labels == label for label in range(probabilities.shape[1])]
    return tuple(fit_threshold(labels[rows], probabilities[rows], coverage) for rows in rows_by_label)


def prediction_sets(probabilities: NDArray[Any], threshold: float | Sequence[float]) -> NDArray[np.bool_]:
    """Which labels are likely enough, (n, labels), by one threshold or one per label; the most likely one always is.

    Without it a set would be empty, and useless, where no label reaches its threshold. To add it can only raise the
    coverage.
    """
    in_set: NDArray[np.bool_] = ~(probabilities < np.asarray(threshold))  # NaN is in: it must not go unnoticed
    in_set[np.arange(len(in_set)), probabilities.argmax(axis=1)] = True
    return in_set
