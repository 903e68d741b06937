"""Labels and probabilities -> the figures that every report uses, for a split and for parts of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss

Slices = dict[str, dict[str, Any]]


def accuracy(correct: NDArray[np.bool_]) -> dict[str, float | int]:
    """accuracy, low and high (its 95 % interval, Wilson 1927) and n, for correct (n,), n at least 1."""
    hits = int(correct.sum())
    interval = binomtest(hits, len(correct)).proportion_ci(0.95, method="wilson")
    return {
        "accuracy": round(hits / len(correct), 6),
        "low": round(float(interval.low), 6),
        "high": round(float(interval.high), 6),
        "n": len(correct),
    }


def classification_metrics(labels: NDArray[np.int64], probabilities: NDArray[Any]) -> dict[str, float | int]:
    """Those of `accuracy`, macro_f1 and log_loss (nats), for labels (n,) and probabilities (n, classes)."""
    classes = np.arange(probabilities.shape[1])
    # float32 rows sum to 1 within 1e-7 only; scikit-learn warns above that.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    predicted = exact.argmax(axis=1)
    return {
        **accuracy(predicted == labels),
        "macro_f1": round(float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0)), 6),
        "log_loss": round(float(log_loss(labels, exact, labels=classes)), 6),
    }


def per_class(labels: NDArray[np.int64], correct: NDArray[np.bool_], names: Sequence[str]) -> Slices:
    """Label -> `accuracy` of the items that truly are of it; a label that none has is left out."""
    groups = {name: labels == label for label, name in enumerate(names)}
    return {name: accuracy(correct[group]) for name, group in groups.items() if group.any()}


def per_quartile(values: NDArray[Any], correct: NDArray[np.bool_]) -> Slices:
    """Quartile of the values (n,) -> from, to (the values in it, both included) and `accuracy`.

    Equal values are never parted: where they are many a quartile may be large, and one that is empty is left out.
    """
    bounds = np.quantile(values, [0.25, 0.5, 0.75])
    quartiles = np.searchsorted(bounds, values) + 1
    return {
        f"quartile {quartile}": {
            "from": round(float(values[quartiles == quartile].min()), 3),
            "to": round(float(values[quartiles == quartile].max()), 3),
            **accuracy(correct[quartiles == quartile]),
        }
        for quartile in np.unique(quartiles)
    }
