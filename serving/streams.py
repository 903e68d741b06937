"""A piece of a text and the state before it -> the JSON of the predictions after it, and the new state.

Between two requests the client carries the state, as a signed token, so that any replica can go on.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import struct
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from convoy.bundles.streaming import Reading, StreamState, begin, read
from convoy.core.rejection import InputRejected
from serving.admission import MIN_KEY_CHARACTERS
from serving.bodies import read_request
from serving.deployed import Deployed
from serving.errors import RequestError, from_rejection
from serving.metrics import metrics_buffer
from serving.schemas import CLOSED, ModelName, Probability, RequestId

KEY_VARIABLE = "CONVOY_STATE_KEY"
FORMAT = 1
MAX_CHARACTERS = 65_536  # of a token; with the model of params.yaml it has 2,160, and up to 1,366 for a pending word
# Format, digest of the model's bundle, number of words, number of labels; the numbers and the pending text follow.
_HEADER = struct.Struct("<B32sIH")
_SIGNATURE_BYTES = hashlib.sha256().digest_size


def share_key(environment: MutableMapping[str, str] = os.environ) -> None:
    """Where no key is set, make one for the life of this server; its workers inherit it.

    Call it where `bentoml serve` loads the service, before the workers start.
    """
    if not environment.get(KEY_VARIABLE):
        environment[KEY_VARIABLE] = secrets.token_hex(32)


@dataclass(frozen=True)
class StateToken:
    """Signs states by HMAC-SHA256 (RFC 2104) and verifies them. A client can read a token, but not change it."""

    key: bytes = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "StateToken":
        """With the environment's key, or a random one. Raises ValueError for a short one."""
        key = environment.get(KEY_VARIABLE) or secrets.token_hex(32)
        if len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"{KEY_VARIABLE} has {len(key)} characters, at least {MIN_KEY_CHARACTERS} are expected")
        return cls(key.encode())

    def encode(self, state: StreamState, model: Deployed) -> str:
        """The token of a state."""
        header = _HEADER.pack(FORMAT, bytes.fromhex(model.predictor.digest), state.words, len(state.latest))
        numbers = np.concatenate([state.carried, state.latest]).astype("<f4").tobytes()
        content = header + numbers + state.pending.encode()
        return base64.urlsafe_b64encode(content + self._sign(content)).rstrip(b"=").decode()

    def decode(self, token: str, model: Deployed) -> StreamState:
        """The state of a token. Raises RequestError for a wrong signature, or another version of the model."""
        content = self._verify(token)
        if content[0] != FORMAT or content[1:33] != bytes.fromhex(model.predictor.digest):
            raise RequestError("state_outdated")
        _, _, words, labels = _HEADER.unpack_from(content)
        size = model.predictor.state_size
        numbers = np.frombuffer(content, "<f4", size + labels, _HEADER.size).astype(np.float32)
        pending = content[_HEADER.size + numbers.nbytes :].decode()
        return StreamState(numbers[:size], numbers[size:], words, pending)

    def _verify(self, token: str) -> bytes:
        """The signed content. The signature is checked before anything is read of it."""
        try:
            encoded = token.encode("ascii") if len(token) <= MAX_CHARACTERS else b""
            decoded = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise RequestError("state_invalid") from None
        content, signature = decoded[:-_SIGNATURE_BYTES], decoded[-_SIGNATURE_BYTES:]
        # The last character has bits that decoding drops; a token that differs only there is a changed one too.
        canonical = base64.urlsafe_b64encode(decoded).rstrip(b"=") == encoded
        if not hmac.compare_digest(signature, self._sign(content)) or not canonical:
            raise RequestError("state_invalid")
        return content

    def _sign(self, content: bytes) -> bytes:
        return hmac.digest(self.key, content, "sha256")


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
