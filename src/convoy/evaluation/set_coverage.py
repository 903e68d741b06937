"""Prediction sets of labelled rows -> their coverage, the band that chance allows it, and how large they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from convoy.bundles.bundle import Sets
from convoy.bundles.conformal import prediction_sets, rank

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
