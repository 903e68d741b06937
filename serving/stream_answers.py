"""A piece of a text and the state before it -> the JSON of the predictions after it, and the new state."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from convoy.bundles.streaming import Reading, StreamState, begin, read
from convoy.core.rejection import InputRejected
from serving.deployed import Deployed
from serving.errors import from_rejection
from serving.json_bodies import read_request
from serving.metrics_buffer import metrics_buffer
from serving.schemas import CLOSED, ModelName, Probability, RequestId
from serving.stream_state import StateToken


class StreamMessage(BaseModel):
    """A piece of a text, cut anywhere; `final` says that an unfinished word at its end does not go on."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str = Field(examples=["A wonderful lit"])
    final: bool = False


class StreamRequest(StreamMessage):
    """A piece of a text, and the state that came with the answer to the piece before it; null for the first."""

    state: str | None = None


@with_config(CLOSED)
class WordPrediction(TypedDict):
    """A word or a punctuation mark as it stands in the text, and the probabilities after it."""

    word: str
    probabilities: dict[str, Probability]


@with_config(CLOSED)
class StreamAnswer(TypedDict):
    """What is known after a piece: of the text so far, and after each word that has ended with it."""

    model: ModelName
    probabilities: Annotated[
        dict[str, Probability] | None, Field(description="of the text so far; null before its first word has ended")
    ]
    words: list[WordPrediction]
    state: Annotated[str, Field(description="to be sent with the next piece; signed, and only good for this model")]
    request_id: RequestId


def answer_request(model: Deployed, state_token: StateToken, body: bytes) -> bytes:
    """A StreamRequest -> StreamAnswer, up to its request id. Raises RequestError."""
    request = read_request(body, StreamRequest)
    state = begin(model.predictor) if request.state is None else state_token.decode(request.state, model)
    reading = _read_piece(model, state, request)
    return _encode_answer(model, reading, {"state": state_token.encode(reading.state, model)})


def answer_message(model: Deployed, state: StreamState, body: bytes) -> tuple[bytes, StreamState]:
    """A StreamMessage -> the same without a state, which the connection keeps. Raises RequestError."""
    reading = _read_piece(model, state, read_request(body, StreamMessage))
    return _encode_answer(model, reading, {}), reading.state


def _read_piece(model: Deployed, state: StreamState, message: StreamMessage) -> Reading:
    try:
        reading = read(model.predictor, state, message.text, message.final)
    except InputRejected as rejection:
        raise from_rejection(rejection) from None
    if np.isnan(reading.probabilities).any():
        raise ValueError("the model gave a probability that is no number")
    if message.final and len(reading.state.latest):
        best = int(reading.state.latest.argmax())
        metrics_buffer.count_predictions(model.metrics, [(best, float(reading.state.latest[best]))])
    return reading


def _encode_answer(model: Deployed, reading: Reading, extra: dict[str, str]) -> bytes:
    labels, latest = model.predictor.card.labels, reading.state.latest
    words = [
        {"word": word, "probabilities": _by_label(labels, row)}
        for word, row in zip(reading.words, reading.probabilities, strict=True)
    ]
    answer = {"probabilities": _by_label(labels, latest) if len(latest) else None, "words": words, **extra}
    return model.answer_prefix + b"," + orjson.dumps(answer)[1:]


def _by_label(labels: Sequence[str], row: NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(labels, row.tolist(), strict=True))
