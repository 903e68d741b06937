"""Labels and probabilities -> the figures that every report uses, computed by scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss


def classification_metrics(labels: NDArray[np.int64], probabilities: NDArray[Any]) -> dict[str, float | int]:
    """accuracy, macro_f1, log_loss (nats) and n, for labels (n,) and probabilities (n, classes)."""
    classes = np.arange(probabilities.shape[1])
    # float32 rows sum to 1 within 1e-7 only; scikit-learn warns above that.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    predicted = exact.argmax(axis=1)
    return {
        "accuracy": round(float(accuracy_score(labels, predicted)), 6),
        "macro_f1": round(float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0)), 6),
        "log_loss": round(float(log_loss(labels, exact, labels=classes)), 6),
        "n": len(labels),
    }
