"""Checked inputs -> the JSON of their predictions; the functions that the routes call, without any HTTP."""

import struct
from collections.abc import Callable, Sequence
from math import isnan

import numpy as np
import orjson
from numpy.typing import NDArray

from convoy.bundles.conformal import prediction_sets
from convoy.bundles.predictor import Prepared
from convoy.kinds.image.preprocessing import ImagePreprocessing, Polarity, read_size
from convoy.kinds.rejection import InputRejected
from convoy.kinds.text.preprocessing import PreparedText
from serving.deployed import Deployed
from serving.errors import RequestError, from_rejection
from serving.json_bodies import read_request
from serving.schemas import TextPrediction, TextSet, TextsRequest

QUICK_BYTES = 64 * 1024  # of an image or of a form; a form is read in 0.1 ms
QUICK_PIXELS = 256 * 256  # decoded and classified in about a millisecond
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_HEAD_BYTES = 33  # signature, header chunk and its checksum
_PNG_CHUNK = struct.Struct(">I4s")  # length of the data, and name; the data and a checksum of 4 bytes follow
# Pixels and a few numbers on their colours. Other chunks can be costly to read: 1 kB of text unpacks to 1 MB.
_QUICK_CHUNKS = frozenset({b"IDAT", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs"})
MOST_QUICK_CHUNKS = 32  # 64 kB in chunks of 4 kB, which is smaller than encoders make them

Rows = NDArray[np.float32]  # (inputs, labels) probabilities
# Makes a route's answer of prepared inputs and their probabilities; also counts them for Prometheus.
Answer = Callable[[Deployed, Sequence[Prepared], Rows], bytes]


def answer_predictions(model: Deployed, prepared: Sequence[Prepared], rows: Rows) -> bytes:
    """ImagesAnswer or TextsAnswer: the most probable label of each input."""
    labels = model.predictor.card.labels
    predictions: list[TextPrediction] = []
    row_lists = rows.tolist()
    for item, row, (index, probability) in zip(prepared, row_lists, _count_best(model, row_lists), strict=True):
        prediction: TextPrediction = {
            "label": labels[index],
            "probability": probability,
            "probabilities": dict(zip(labels, row, strict=True)),
        }
        _add_remarks(prediction, item)
        predictions.append(prediction)
    return _encode_answer(model.answer_prefix + b',"predictions":', predictions)


def answer_sets(model: Deployed, prepared: Sequence[Prepared], rows: Rows) -> bytes:
    """ImageSetsAnswer or TextSetsAnswer: the labels of each input that reach the card's threshold, and the most likely.

    Raises RequestError where no threshold was ever calibrated, as in bundles that are migrated from format 1.
    """
    card = model.predictor.card
    if card.sets.n == 0:
        raise RequestError("sets_uncalibrated")
    _count_best(model, rows.tolist())
    sets: list[TextSet] = []
    for item, row, in_set in zip(prepared, rows, prediction_sets(rows, card.sets.threshold), strict=True):
        order = [index for index in np.argsort(-row, kind="stable").tolist() if in_set[index]]
        labels = [card.labels[index] for index in order]
        label_set: TextSet = {"labels": labels, "probabilities": dict(zip(labels, row[order].tolist(), strict=True))}
        _add_remarks(label_set, item)
        sets.append(label_set)
    return _encode_answer(model.answer_prefix + b',"coverage":%r,"predictions":' % card.sets.coverage, sets)


def predict_images(
    model: Deployed,
    images: Sequence[bytes],
    polarity: Polarity | None,
    name: str = "image",
    answer: Answer = answer_predictions,
) -> bytes:
    """Encoded images -> `answer` of their predictions. Raises RequestError that names the first bad one: `image[2]`."""
    prepared = prepare_images(model, images, polarity, name)
    return answer(model, prepared, model.predictor.probabilities([item.array for item in prepared]))


def prepare_images(
    model: Deployed, images: Sequence[bytes], polarity: Polarity | None, name: str = "image"
) -> list[Prepared]:
    """Encoded images -> the model's inputs. Raises RequestError that names the first bad one."""
    if len(images) > 1:
        _refuse_too_many_pixels(model, images, name)
    prepared: list[Prepared] = []
    for index, encoded in enumerate(images):
        try:
            prepared.append(model.predictor.prepare(encoded, polarity=polarity))
        except InputRejected as rejection:
            raise from_rejection(rejection, name and f"{name}[{index}]") from None
    return prepared


def predict_texts(model: Deployed, texts: Sequence[str], answer: Answer = answer_predictions) -> bytes:
    """Texts -> `answer` of their predictions. Raises RequestError that names the first bad one, as `texts[2]`."""
    prepared = prepare_texts(model, texts)
    return answer(model, prepared, model.predictor.probabilities([item.array for item in prepared]))


def prepare_texts(model: Deployed, texts: Sequence[str]) -> list[Prepared]:
    """Texts -> the model's inputs. Raises RequestError that names the first bad one."""
    prepared: list[Prepared] = []
    for index, text in enumerate(texts):
        try:
            prepared.append(model.predictor.prepare(text))
        except InputRejected as rejection:
            raise from_rejection(rejection, f"texts[{index}]") from None
    return prepared


def is_quick(encoded: bytes) -> bool:
    """Whether an image is so quick to read that a thread would cost more: a PNG of few pixels and nothing else."""
    if len(encoded) > QUICK_BYTES or not encoded.startswith(_PNG_START) or len(encoded) < 24:
        return False
    width, height = struct.unpack_from(">II", encoded, 16)
    return width * height <= QUICK_PIXELS and _has_only_pixel_chunks(encoded)


def _has_only_pixel_chunks(png: bytes) -> bool:
    offset, last_offset = _PNG_HEAD_BYTES, len(png) - _PNG_CHUNK.size
    for _ in range(MOST_QUICK_CHUNKS):
        if offset > last_offset:
            return False
        length, name = _PNG_CHUNK.unpack_from(png, offset)
        if name == b"IEND":
            return True
        if name not in _QUICK_CHUNKS:
            return False
        offset += _PNG_CHUNK.size + length + 4
    return False


def read_texts(body: bytes, max_items: int) -> list[str]:
    """The texts of a JSON body. Raises RequestError where it is not a TextsRequest."""
    texts = read_request(body, TextsRequest).texts
    if len(texts) > max_items:
        raise RequestError("too_many_items", f"{len(texts)} texts, at most {max_items} are allowed in one request")
    return texts


def _refuse_too_many_pixels(model: Deployed, images: Sequence[bytes], name: str) -> None:
    """The limit of one image holds for a request's images together, or large ones would exceed the deadline."""
    contract = model.predictor.card.preprocessing
    assert isinstance(contract, ImagePreprocessing)
    total = 0
    for index, encoded in enumerate(images):
        try:
            width, height = read_size(encoded, contract.max_pixels)
        except InputRejected as rejection:
            raise from_rejection(rejection, f"{name}[{index}]") from None
        total += width * height
    if total > contract.max_pixels:
        raise RequestError(
            "image_too_large",
            f"the {len(images)} images have {total} pixels together, at most {contract.max_pixels} in all are allowed",
        )


def _add_remarks(prediction: TextPrediction | TextSet, item: Prepared) -> None:
    """Add what was special about an input."""
    if isinstance(item, PreparedText) and item.truncated:
        prediction["truncated"] = True
    if item.warnings:
        prediction["warnings"] = list(item.warnings)


def _count_best(model: Deployed, rows: list[list[float]]) -> list[tuple[int, float]]:
    """Count, and give, each row's most probable label as index and probability. numpy takes 4 us longer for one row."""
    best = []
    for row in rows:
        # It must end as an internal error, not as null, nor as a set without labels.
        if isnan(sum(row)):
            raise ValueError("the model gave a probability that is no number")
        probability = max(row)
        best.append((row.index(probability), probability))
    model.metrics.count_predictions(best)
    return best


def _encode_answer(prefix: bytes, predictions: Sequence[TextPrediction | TextSet]) -> bytes:
    return prefix + orjson.dumps(predictions) + b"}"
