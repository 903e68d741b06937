"""Logits and labels of held-out rows -> the temperature and the offsets that calibrate probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from convoy.bundles.bundle import Calibration

BOUNDS = (0.05, 20.0)  # of the temperature
NEUTRAL = 1.0  # the temperature that changes nothing
LEAST_ROWS = 50  # with fewer the normal approximation below means little, and nothing is fitted
FOLDS = 5
CONFIDENCE_Z = 1.645  # standard errors: one-sided 95 %

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


def split_in_halves(labels: Labels) -> tuple[Labels, Labels]:
    """The rows (n,) in two disjoint halves, as indices: every second row of each label.

    The first half has a row more where their number is odd.
    """
    order = np.argsort(labels, kind="stable")
    return order[::2], order[1::2]


def log_shares(labels: Labels, classes: int) -> tuple[float, ...]:
    """The log of each label's share of the training rows; a label without rows counts as if it had one.

    A network trained with balanced weights predicts for equally frequent labels; these offsets give its logits the
    frequencies of the data (Saerens et al. 2002; arXiv:2007.07314).
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return tuple(np.log(counts / len(labels)).round(6).tolist())


def calibrate(labels: Labels, logits: NDArray[Any], offsets: tuple[float, ...] | None = None) -> Calibration:
    """A calibration for labels (n,) and logits (n, labels) of rows that nothing else was fitted to or chosen by.

    Held-out rows decide (cross-validation, paired over rows): the offsets stay unless the log loss is clearly lower
    without them; the temperature is 1 unless the log loss is clearly lower with another one.
    """
    exact = logits.astype(np.float64)
    if len(labels) < LEAST_ROWS:
        return Calibration(NEUTRAL, offsets, len(labels))
    losses = _held_out_losses(labels, exact, offsets)
    if offsets is not None and _is_clearly_lower(without_offsets := _held_out_losses(labels, exact), losses):
        losses, offsets = without_offsets, None
    helps = _is_clearly_lower(losses, _losses(labels, exact, NEUTRAL, offsets))
    temperature = fit_temperature(labels, exact, offsets) if helps else NEUTRAL
    return Calibration(temperature, offsets, len(labels))


def fit_temperature(labels: Labels, logits: NDArray[Any], offsets: tuple[float, ...] | None = None) -> float:
    """The T within BOUNDS with the least log loss of softmax(logits / T + offsets) (arXiv:1706.04599).

    It is 1 where the greatest logit of every row is right: the least loss would be at 0, with every answer 100 %.
    """
    if (logits.argmax(axis=1) == labels).all():
        return NEUTRAL
    exact = logits.astype(np.float64)

    def log_loss(log_temperature: float) -> float:
        return float(_losses(labels, exact, np.exp(log_temperature), offsets).mean())

    optimum = minimize_scalar(log_loss, bounds=tuple(np.log(BOUNDS)), method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(optimum.x)), 4)


def _losses(labels: Labels, logits: Floats, temperature: float, offsets: tuple[float, ...] | None) -> Floats:
    """The log loss of each row, in nats."""
    losses: Floats = -log_softmax(Calibration(temperature, offsets).logits(logits), axis=1)
    return losses[np.arange(len(labels)), labels]


def _held_out_losses(labels: Labels, logits: Floats, offsets: tuple[float, ...] | None = None) -> Floats:
    """The log loss of each row at the temperature fitted to the other folds."""
    folds = np.arange(len(labels)) % FOLDS
    losses = np.empty(len(labels))
    for fold in range(FOLDS):
        fitted, held_out = folds != fold, folds == fold
        temperature = fit_temperature(labels[fitted], logits[fitted], offsets)
        losses[held_out] = _losses(labels[held_out], logits[held_out], temperature, offsets)
    return losses


def _is_clearly_lower(losses: Floats, reference: Floats) -> bool:
    gains = reference - losses
    return bool(gains.mean() > CONFIDENCE_Z * gains.std(ddof=1) / np.sqrt(len(gains)))
