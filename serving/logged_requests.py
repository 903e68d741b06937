"""An answered request -> its line in the log: model and answer; what was sent only where the settings say so."""

import base64
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from serving.request import RequestContext

MAX_PAYLOAD_BYTES = 1_000_000  # of one request; a larger one is noted by its size alone


class Payload(NamedTuple):
    """What the client sent; kept only where the settings say so."""

    body: bytes | None  # None where it is too large to be kept
    size: int
    content_type: str
    query: bytes


class Entry(NamedTuple):
    """What is kept of a request until it is written."""

    at_s: float  # when it was answered
    took_s: float
    route: str
    request_id: str
    task: str
    status: int
    code: str | None
    model: tuple[str, str] | None  # version and digest
    answer: bytes  # parsed when it is written: parsing would slow down the request
    payload: Payload | None

    @property
    def size(self) -> int:
        """About how many bytes of memory it holds."""
        return len(self.answer) + (len(self.payload.body) if self.payload and self.payload.body else 0)


def entry_of(route: str, query: bytes, context: RequestContext, with_payload: bool) -> Entry:
    """The entry of a request of a model's route that has its answer."""
    release = context.model.release if context.model else None
    payload = None
    if with_payload:
        size = len(context.body)
        body = context.body if size <= MAX_PAYLOAD_BYTES else None
        payload = Payload(body, size, context.content_type, query)
    return Entry(
        time.time(),
        time.monotonic() - context.arrived_s,
        route,
        context.request_id,
        context.task or "",
        context.status,
        context.error.code if context.error else None,
        (release.version, release.digest) if release else None,
        context.answer,
        payload,
    )


def line_of(entry: Entry) -> bytes:
    """The line, as JSON."""
    content: dict[str, object] = {
        "at": datetime.fromtimestamp(entry.at_s, UTC).isoformat(timespec="milliseconds"),
        "id": entry.request_id,
        "route": entry.route,
        "task": entry.task,
        "status": entry.status,
        "ms": round(entry.took_s * 1000, 3),
    }
    if entry.model is not None:
        content["version"], content["digest"] = entry.model
    if entry.code is not None:
        content["code"] = entry.code
    if entry.answer:
        content |= _shorten_answer(orjson.loads(entry.answer))
    if entry.payload is not None:
        content["payload"] = _describe_payload(entry.payload)
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def _shorten_answer(answer: dict[str, Any]) -> dict[str, object]:
    """What is kept of the predictions, or of the explanation, whose label the client may have chosen."""
    if "predictions" in answer:
        return {"predictions": [_shorten(prediction) for prediction in answer["predictions"]]}
    if "label" in answer:
        return {"explanation": _shorten(answer)}
    return {"predictions": _shorten_stream(answer["probabilities"])}


def _shorten_stream(probabilities: dict[str, float] | None) -> list[dict[str, object]]:
    """The prediction for a text in pieces so far, and none of its words."""
    if probabilities is None:
        return []
    best = max(probabilities, key=probabilities.__getitem__)
    return [_shorten({"label": best, "probability": probabilities[best]})]


def _shorten(prediction: dict[str, object]) -> dict[str, object]:
    """The label and its probability, or the labels of a set with theirs."""
    if "label" in prediction:
        return {"label": prediction["label"], "probability": prediction["probability"]}
    return {"labels": prediction["labels"], "probabilities": prediction["probabilities"]}


def _describe_payload(payload: Payload) -> dict[str, object]:
    description = {
        "content_type": payload.content_type,
        "query": payload.query.decode("latin-1"),
        "bytes": payload.size,
    }
    if payload.body is None:
        return {**description, "left_out": f"more than {MAX_PAYLOAD_BYTES} bytes"}
    return {**description, "base64": base64.b64encode(payload.body).decode()}
