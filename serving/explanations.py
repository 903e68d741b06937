"""One checked input -> the JSON of its explanation; the functions that the routes call, without any HTTP."""

import base64
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from convoy.bundles.bundle import ImageExplanation, TextExplanation
from convoy.bundles.explanation import (
    Explainer,
    draw_overlay,
    occlude,
    probabilities_while_reading,
    strongest_phrases,
    word_contributions,
)
from convoy.kinds.image.preprocessing import Polarity, PreparedImage
from convoy.kinds.kind import InputRejected
from convoy.kinds.text.preprocessing import LocatedText, TextPreprocessing, TextPreprocessor
from serving.deployed import Deployed
from serving.errors import RequestError, from_rejection
from serving.explanation_schemas import ExplainedPhrase, ExplainedWord, OmittedWords
from serving.predictions import prepare_images
from serving.routes import Method


class ImageQuestion(NamedTuple):
    """What is asked about an image: for which label (None: the predicted one), how, and how the image was made."""

    label: str | None = None
    method: Method = "contributions"
    polarity: Polarity | None = None


def explain_image(model: Deployed, encoded: bytes, asked: ImageQuestion, name: str = "") -> bytes:
    """ImageExplanationAnswer. Raises RequestError where the image cannot be used, or the bundle explains nothing."""
    contract = model.predictor.card.explanation
    if not isinstance(contract, ImageExplanation):
        raise RequestError("explanation_missing")
    (prepared,) = prepare_images(model, [encoded], asked.polarity, name)
    assert isinstance(prepared, PreparedImage)
    pixels = prepared.array
    answer: dict[str, object] = {}
    if asked.method == "occlusion":
        probabilities, found = occlude(model.predictor, contract, pixels)
        if not np.isfinite(found).all():
            raise ValueError("the model gave a probability that is no number")
        index = _index(model, asked.label, probabilities)
    else:
        explained = _explainer(model).explain(pixels)
        probabilities, found = explained.probabilities, explained.contributions
        index = _index(model, asked.label, probabilities)
        answer["bias"] = float(explained.bias[index])
    answer |= {
        "method": asked.method,
        "map": found[index].tolist(),
        "size_px": len(pixels),
        "overlay": base64.b64encode(draw_overlay(pixels, found[index])).decode(),
    }
    if prepared.warnings:
        answer["warnings"] = list(prepared.warnings)
    return _write(model, index, probabilities, answer)


def explain_text(model: Deployed, text: str, label: str | None) -> bytes:
    """TextExplanationAnswer. Raises RequestError where the text cannot be used, or the bundle explains nothing."""
    contract, preprocessor = model.predictor.card.explanation, model.predictor.preprocessor
    if not isinstance(contract, TextExplanation):
        raise RequestError("explanation_missing")
    assert isinstance(preprocessor, TextPreprocessor) and isinstance(preprocessor.contract, TextPreprocessing)
    try:
        located = preprocessor.locate(text)
    except InputRejected as rejection:
        raise from_rejection(rejection, "text") from None
    explained = _explainer(model).explain(located.prepared.array)
    index = _index(model, label, explained.probabilities)
    found = explained.contributions[index]
    places, rows = probabilities_while_reading(model.predictor, located.prepared.array, contract.max_prefixes)
    after = dict(zip(places.tolist(), rows[:, index].tolist(), strict=True))
    words = _words(text, located, word_contributions(found, contract.widths), after)
    phrases: list[ExplainedPhrase] = [
        {
            "text": " ".join(word["text"] for word in words[phrase.first : phrase.stop]),
            "first": phrase.first,
            "words": phrase.stop - phrase.first,
            "contribution": phrase.contribution,
        }
        for phrase in strongest_phrases(found, contract.widths, contract.max_phrases)
    ]
    answer: dict[str, object] = {"bias": float(explained.bias[index]), "words": words, "phrases": phrases}
    if located.omitted:
        answer["omitted"] = _omitted(text, located, preprocessor.contract.head_tokens)
    return _write(model, index, explained.probabilities, answer)


def _explainer(model: Deployed) -> Explainer:
    if model.explainer is None:
        raise RequestError("explanation_missing")
    return model.explainer


def _index(model: Deployed, label: str | None, probabilities: NDArray[np.float32]) -> int:
    """Of the label that is asked for, or of the most probable one."""
    return int(probabilities.argmax()) if label is None else model.predictor.card.labels.index(label)


def _words(
    text: str, located: LocatedText, contributions: NDArray[np.float64], after: Mapping[int, float]
) -> list[ExplainedWord]:
    return [
        {
            "text": text[start:end],
            "start": start,
            "end": end,
            "contribution": contribution,
            "probability_after": after.get(place),
        }
        for place, ((start, end), contribution) in enumerate(zip(located.spans, contributions.tolist(), strict=True))
    ]


def _omitted(text: str, located: LocatedText, head: int) -> OmittedWords:
    start = located.spans[head - 1][1] if head else 0
    end = located.spans[head][0] if head < len(located.spans) else len(text)
    return {"words": located.omitted, "start": start, "end": end}


def _write(model: Deployed, index: int, probabilities: NDArray[np.float32], answer: Mapping[str, object]) -> bytes:
    labels, row = model.predictor.card.labels, probabilities.tolist()
    head = {"label": labels[index], "probability": row[index], "probabilities": dict(zip(labels, row, strict=True))}
    return model.answer_head + b"," + orjson.dumps({**head, **answer})[1:]
