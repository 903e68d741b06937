"""What the middleware and the routes share about one request."""

import time
from collections.abc import Mapping

from convoy.core.paths import Task
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.routes import JSON

# A header of every answer: no browser may guess another type than it says, such as a page for JSON.
NOSNIFF = (b"x-content-type-options", b"nosniff")
WHOLE_BODY = "convoy.whole"  # in the ASGI scope of a request whose whole body came with its headers


class RequestContext:
    """One request, in its ASGI scope as `convoy`. Times are of time.monotonic(), which the event loop counts by too."""

    __slots__ = (
        "answer",
        "arrived_s",
        "body",
        "body_read",
        "content_type",
        "deadline_s",
        "error",
        "held_bytes",
        "model",
        "request_id",
        "status",
        "task",
    )

    def __init__(self) -> None:
        self.request_id = ""
        self.content_type = ""
        self.task: Task | None = None  # whose model the request is for
        self.body = b""
        self.body_read = False  # whole; a request that is refused then may keep its connection
        self.held_bytes = 0  # of the body, as the budget has counted
        self.arrived_s = time.monotonic()
        self.deadline_s = float("inf")
        self.model: Deployed | None = None  # the one model of the whole request
        self.error: RequestError | None = None  # set by a route; the middleware writes it
        self.status = 0  # of the answer, once it has started
        self.answer = b""  # of a model's route, without the request id; for the request log

    def refuse_if_late(self) -> None:
        """Raise RequestError where the deadline has passed."""
        if time.monotonic() >= self.deadline_s:
            raise RequestError("deadline_exceeded")

    def error_response(
        self, error: RequestError, *extra_headers: tuple[bytes, bytes], extra: Mapping[str, object] | None = None
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers, with `extra_headers`, and body of an error's response; `extra` is as in RequestError.body."""
        body = error.body(self.request_id, extra or {})
        headers = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", self.request_id.encode()),
            NOSNIFF,
            *extra_headers,
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        return headers, body
