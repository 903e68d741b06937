"""Every way a request can fail -> its status, and the JSON body that all errors have."""

import json
from collections.abc import Mapping
from typing import Any

from convoy.core.rejection import InputRejected

JSON = "application/json"
Json = dict[str, Any]
# code -> (HTTP status, what it means). 5xx are errors of the service only.
CODES: dict[str, tuple[int, str]] = {
    "malformed_json": (400, "the body is not JSON that every parser reads alike"),
    "malformed_multipart": (400, "the body is not the multipart form that its content type announces"),
    "malformed_request": (400, "the headers contradict each other"),
    "state_invalid": (400, "the state is not one that this service signed, or it was changed"),
    "unauthorized": (401, "this service wants an API key, as `Authorization: Bearer ...`"),
    "forbidden_host": (403, "the service is not known by this Host; CONVOY_HOSTS names those that it has"),
    "forbidden_origin": (403, "a page of another origin asks; CONVOY_ORIGINS names those that may"),
    "not_found": (404, "there is no such path"),
    "method_not_allowed": (405, "the path exists, Allow names its methods"),
    "request_timeout": (408, "the head or the body did not arrive in time"),
    "explanation_missing": (
        409,
        "the model explains nothing: its task has no explanation, or it was exported before there were any; give the "
        "task one in params.yaml and export it again (`dvc repro`), then promote",
    ),
    "sets_uncalibrated": (409, "the model, of an older format, was never calibrated for prediction sets; it predicts"),
    "state_outdated": (409, "the state is of another version of the model; begin the text anew"),
    "body_too_large": (413, "the body is larger than the model's card allows"),
    "image_too_large": (413, "an image, or all of a request together, has more pixels than the model's card allows"),
    "stream_too_long": (413, "a text in pieces has more words than the model's card allows"),
    "text_too_long": (413, "the text has more characters than the model's card allows"),
    "unsupported_media_type": (415, "the content type, its charset or the content encoding is not accepted here"),
    "blank_text": (422, "a text is empty or only white space"),
    "image_missing": (422, "the form has no field `image`"),
    "invalid_parameter": (422, "a query parameter is unknown, repeated or has a value that is not allowed"),
    "invalid_request": (422, "the JSON lacks a field, has one too many or one of the wrong type"),
    "invalid_text": (422, "a text holds a lone surrogate"),
    "not_a_file": (422, "the field `image` is text, such as a URL; only files are read, nothing is fetched"),
    "too_many_items": (422, "more inputs in one request than the model's card allows"),
    "undecodable_image": (422, "the bytes are not a whole PNG, JPEG or WebP image"),
    "word_too_long": (422, "a word does not end within as many characters as the model's card allows"),
    "unknown_field": (422, "the form has a field other than `image`"),
    "overloaded": (429, "as many requests as can be answered in time are inside; ask again after Retry-After"),
    "headers_too_large": (431, "too many headers, or too long ones"),
    "internal_error": (500, "a fault of the service; its log has the details under the request id"),
    "model_unavailable": (503, "the model of this task is not loaded, /readyz says why"),
    "not_ready": (503, "the model of a task is not loaded, or nothing is deployed"),
    "deadline_exceeded": (504, "the answer was not ready in time"),
}
RETRY_AFTER_S = {429: 1, 503: 5}  # accepted requests are answered by then; a deployment is over by then

# For answers of BentoML and Starlette: the code that fits their status.
_CODES_BY_STATUS = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "overloaded",
    503: "not_ready",
    504: "deadline_exceeded",
}


class RequestError(Exception):
    """A request that ends in a 4xx or 5xx; `message` is for people and repeats no input.

    `extra` stands next to `error` in the body.
    """

    def __init__(
        self, code: str, message: str = "", headers: Mapping[str, str] | None = None, extra: Json | None = None
    ) -> None:
        # A code of preprocessing that this table lacks is still an input that cannot be used.
        self.status, meaning = CODES.get(code, (422, ""))
        self.code, self.extra = code, extra or {}
        self.message = message or meaning
        self.headers = dict(headers or {})
        if self.status in RETRY_AFTER_S:
            self.headers.setdefault("retry-after", str(RETRY_AFTER_S[self.status]))
        super().__init__(self.message)

    def body(self, request_id: str) -> bytes:
        """The JSON of the error contract."""
        error = {"code": self.code, "message": self.message, "request_id": request_id}
        return json.dumps({"error": error, **self.extra}, ensure_ascii=False).encode("utf-8")


def from_rejection(rejection: InputRejected, name: str = "") -> RequestError:
    """The error of an input that preprocessing refuses; `name` says which input, as `texts[2]`."""
    return RequestError(rejection.code, f"{name}: {rejection.message}" if name else rejection.message)


def from_status(status: int) -> RequestError:
    """The error that an answer of BentoML or Starlette stands for."""
    return RequestError(_CODES_BY_STATUS.get(status, "internal_error" if status >= 500 else "malformed_request"))
