"""One checked input -> the JSON of its explanation; the functions that the routes call, without any HTTP."""

import base64
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from convoy.bundles.explanation import Explainer
from convoy.kinds.image.explanation import ImageExplanation, draw_overlay, occlude
from convoy.kinds.image.preprocessing import Polarity, PreparedImage
from convoy.kinds.rejection import InputRejected
from convoy.kinds.text.explanation import (
    TextExplanation,
    probabilities_while_reading,
    strongest_phrases,
    word_contributions,
)
from convoy.kinds.text.preprocessing import LocatedText, TextPreprocessing, TextPreprocessor
from serving.deployed import Deployed
from serving.errors import RequestError, from_rejection
from serving.predictions import prepare_images
from serving.routes import Method
from serving.schemas import ExplainedPhrase, ExplainedWord, OmittedWords


class ImageQuestion(NamedTuple):
    """For which label to explain an image (None: the predicted one), by which method, and how the image was made."""

    label: str | None = None
    method: Method = "contributions"
    polarity: Polarity | None = None


def explain_image(model: Deployed, encoded: bytes, question: ImageQuestion, name: str = "") -> bytes:
    """ImageExplanationAnswer. Raises RequestError where the image cannot be used, or the bundle explains nothing."""
    contract = model.predictor.card.explanation
    if not isinstance(contract, ImageExplanation):
        raise RequestError("explanation_missing")
    (prepared,) = prepare_images(model, [encoded], question.polarity, name)
    assert isinstance(prepared, PreparedImage)
    pixels = prepared.array
    answer: dict[str, object] = {}
    if question.method == "occlusion":
        probabilities, maps = occlude(model.predictor.probabilities, contract, pixels)
        if not np.isfinite(maps).all():
            raise ValueError("the model gave a probability that is no number")
        index = _label_index(model, question.label, probabilities)
    else:
        explained = _explainer_of(model).explain(pixels)
        probabilities, maps = explained.probabilities, explained.contributions
        index = _label_index(model, question.label, probabilities)
        answer["bias"] = float(explained.bias[index])
    answer |= {
        "method": question.method,
        "map": maps[index].tolist(),
        "size_px": len(pixels),
        "overlay": base64.b64encode(draw_overlay(pixels, maps[index])).decode(),
    }
    if prepared.warnings:
        answer["warnings"] = list(prepared.warnings)
    return _encode_answer(model, index, probabilities, answer)


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
    explained = _explainer_of(model).explain(located.prepared.array)
    index = _label_index(model, label, explained.probabilities)
    contributions = explained.contributions[index]
    places, rows = probabilities_while_reading(
        model.predictor.probabilities, located.prepared.array, contract.max_prefixes
    )
    probabilities_after = dict(zip(places.tolist(), rows[:, index].tolist(), strict=True))
    words = _explain_words(text, located, word_contributions(contributions, contract.widths), probabilities_after)
    phrases: list[ExplainedPhrase] = [
        {
            "text": " ".join(word["text"] for word in words[phrase.first : phrase.stop]),
            "first": phrase.first,
            "words": phrase.stop - phrase.first,
            "contribution": phrase.contribution,
        }
        for phrase in strongest_phrases(contributions, contract.widths, contract.max_phrases)
    ]
    answer: dict[str, object] = {"bias": float(explained.bias[index]), "words": words, "phrases": phrases}
    if located.omitted:
        answer["omitted"] = _omitted_words(text, located, preprocessor.contract.head_tokens)
    return _encode_answer(model, index, explained.probabilities, answer)


def _explainer_of(model: Deployed) -> Explainer:
    if model.explainer is None:
        raise RequestError("explanation_missing")
    return model.explainer


def _label_index(model: Deployed, label: str | None, probabilities: NDArray[np.float32]) -> int:
    """The index of `label`, or of the most probable label where it is None."""
    return int(probabilities.argmax()) if label is None else model.predictor.card.labels.index(label)


def _explain_words(
    text: str, located: LocatedText, contributions: NDArray[np.float64], probabilities_after: Mapping[int, float]
) -> list[ExplainedWord]:
    return [
        {
            "text": text[start:end],
            "start": start,
            "end": end,
            "contribution": contribution,
            "probability_after": probabilities_after.get(place),
        }
        for place, ((start, end), contribution) in enumerate(zip(located.spans, contributions.tolist(), strict=True))
    ]


def _omitted_words(text: str, located: LocatedText, head_tokens: int) -> OmittedWords:
    start = located.spans[head_tokens - 1][1] if head_tokens else 0
    end = located.spans[head_tokens][0] if head_tokens < len(located.spans) else len(text)
    return {"words": located.omitted, "start": start, "end": end}


def _encode_answer(
    model: Deployed, index: int, probabilities: NDArray[np.float32], answer: Mapping[str, object]
) -> bytes:
    labels, row = model.predictor.card.labels, probabilities.tolist()
    prediction = {
        "label": labels[index],
        "probability": row[index],
        "probabilities": dict(zip(labels, row, strict=True)),
    }
    return model.answer_prefix + b"," + orjson.dumps({**prediction, **answer})[1:]
