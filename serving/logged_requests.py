"""What is noted of an answered request -> its line: who answered what; what was sent only where that is asked for."""

import base64
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from serving.request_context import RequestContext

MAX_PAYLOAD_BYTES = 1_000_000  # of one request; a larger one is noted by its size alone


class Payload(NamedTuple):
    """What was sent, where that is asked for."""

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
    answer: bytes  # parsed when it is written, since that takes longer than to note it
    payload: Payload | None

    @property
    def size(self) -> int:
        """About how many bytes of memory it holds."""
        return len(self.answer) + (len(self.payload.body) if self.payload and self.payload.body else 0)


def entry_of(route: str, query: bytes, exchange: RequestContext, with_payload: bool) -> Entry:
    """The entry of a request of a model's route that has its answer."""
    release = exchange.model.release if exchange.model else None
    payload = None
    if with_payload:
        size = len(exchange.body)
        body = exchange.body if size <= MAX_PAYLOAD_BYTES else None
        payload = Payload(body, size, exchange.content_type, query)
    return Entry(
        time.time(),
        time.monotonic() - exchange.arrived_s,
        route,
        exchange.request_id,
        exchange.task or "",
        exchange.status,
        exchange.fault.code if exchange.fault else None,
        (release.version, release.digest) if release else None,
        exchange.answer,
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
        content |= _told(orjson.loads(entry.answer))
    if entry.payload is not None:
        content["payload"] = _payload(entry.payload)
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def _told(answer: dict[str, Any]) -> dict[str, object]:
    """What is kept of the predictions, or of the explanation, which is of a label that the client may have chosen."""
    if "predictions" in answer:
        return {"predictions": [_shortened(found) for found in answer["predictions"]]}
    if "label" in answer:
        return {"explanation": _shortened(answer)}
    return {"predictions": _so_far(answer["probabilities"])}


def _so_far(probabilities: dict[str, float] | None) -> list[dict[str, object]]:
    """Of a text in pieces what is known of it so far, and none of its words."""
    if probabilities is None:
        return []
    best = max(probabilities, key=probabilities.__getitem__)
    return [_shortened({"label": best, "probability": probabilities[best]})]


def _shortened(prediction: dict[str, object]) -> dict[str, object]:
    """The label and its probability, or the labels of a set with theirs."""
    if "label" in prediction:
        return {"label": prediction["label"], "probability": prediction["probability"]}
    return {"labels": prediction["labels"], "probabilities": prediction["probabilities"]}


def _payload(payload: Payload) -> dict[str, object]:
    about = {"content_type": payload.content_type, "query": payload.query.decode("latin-1"), "bytes": payload.size}
    if payload.body is None:
        return {**about, "left_out": f"more than {MAX_PAYLOAD_BYTES} bytes"}
    return {**about, "base64": base64.b64encode(payload.body).decode()}
