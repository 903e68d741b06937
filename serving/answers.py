"""Probabilities -> the JSON of answers, the same for every kind."""

from collections.abc import Callable, Mapping, Sequence
from math import isnan

import numpy as np
import orjson
from numpy.typing import NDArray

from convoy.bundles.conformal import prediction_sets
from convoy.bundles.predictor import Prepared
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.metrics import metrics_buffer
from serving.schemas import LabelSet, Prediction

Rows = NDArray[np.float32]  # (inputs, labels) probabilities
# Makes a route's answer of prepared inputs and their probabilities; also counts them for Prometheus.
Answer = Callable[[Deployed, Sequence[Prepared], Rows], bytes]


def answer_predictions(model: Deployed, prepared: Sequence[Prepared], rows: Rows) -> bytes:
    """PredictionsAnswer: the most probable label of each input."""
    labels = model.predictor.card.labels
    predictions: list[Prediction] = []
    row_lists = rows.tolist()
    for item, row, (index, probability) in zip(prepared, row_lists, _count_best(model, row_lists), strict=True):
        prediction: Prediction = {
            "label": labels[index],
            "probability": probability,
            "probabilities": dict(zip(labels, row, strict=True)),
        }
        _add_remarks(prediction, item)
        predictions.append(prediction)
    return _encode(model.answer_prefix + b',"predictions":', predictions)


def answer_sets(model: Deployed, prepared: Sequence[Prepared], rows: Rows) -> bytes:
    """SetsAnswer: the labels of each input that reach the card's threshold, and the most likely.

    Raises RequestError where no threshold was ever calibrated, as in bundles that are migrated from format 1.
    """
    card = model.predictor.card
    if card.sets.n == 0:
        raise RequestError("sets_uncalibrated")
    _count_best(model, rows.tolist())
    sets: list[LabelSet] = []
    for item, row, in_set in zip(prepared, rows, prediction_sets(rows, card.sets.threshold), strict=True):
        order = [index for index in np.argsort(-row, kind="stable").tolist() if in_set[index]]
        labels = [card.labels[index] for index in order]
        label_set: LabelSet = {"labels": labels, "probabilities": dict(zip(labels, row[order].tolist(), strict=True))}
        _add_remarks(label_set, item)
        sets.append(label_set)
    return _encode(model.answer_prefix + b',"coverage":%r,"predictions":' % card.sets.coverage, sets)


def answer_explanation(
    model: Deployed, index: int, probabilities: NDArray[np.float32], explanation: Mapping[str, object]
) -> bytes:
    """An Explanation of the label with this index, with what its kind says of it; `probabilities` are (labels,)."""
    labels, row = model.predictor.card.labels, probabilities.tolist()
    prediction = {
        "label": labels[index],
        "probability": row[index],
        "probabilities": dict(zip(labels, row, strict=True)),
    }
    return model.answer_prefix + b"," + orjson.dumps({**prediction, **explanation})[1:]


def explained_label(model: Deployed, label: str | None, probabilities: NDArray[np.float32]) -> int:
    """The index of `label`, or of the most probable label where it is None."""
    return int(probabilities.argmax()) if label is None else model.predictor.card.labels.index(label)


def _add_remarks(answer: Prediction | LabelSet, item: Prepared) -> None:
    """Add what was special about an input."""
    if getattr(item, "truncated", False):
        answer["truncated"] = True
    if item.warnings:
        answer["warnings"] = list(item.warnings)


def _count_best(model: Deployed, rows: list[list[float]]) -> list[tuple[int, float]]:
    """Count, and give, each row's most probable label as index and probability. numpy takes 4 us longer for one row."""
    best = []
    for row in rows:
        # It must end as an internal error, not as null, nor as a set without labels.
        if isnan(sum(row)):
            raise ValueError("the model gave a probability that is no number")
        probability = max(row)
        best.append((row.index(probability), probability))
    metrics_buffer.count_predictions(model.metrics, best)
    return best


def _encode(prefix: bytes, predictions: Sequence[Prediction | LabelSet]) -> bytes:
    return prefix + orjson.dumps(predictions) + b"}"
