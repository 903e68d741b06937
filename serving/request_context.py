"""What the outer layer and the routes tell each other about one request."""

import time
from collections.abc import Mapping

from convoy.core.paths import Task
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.routes import JSON

# A header of every answer: no browser may take one for another type than it says, such as JSON for a page.
NOSNIFF = (b"x-content-type-options", b"nosniff")
WHOLE = "convoy.whole"  # in the ASGI scope of a request whose whole body came with its head; it need not be waited for


class RequestContext:
    """One request, in its ASGI scope as `convoy`. Times are of time.monotonic(), which the event loop counts by too."""

    __slots__ = (
        "answer",
        "arrived_s",
        "body",
        "body_read",
        "content_type",
        "deadline_s",
        "fault",
        "held",
        "model",
        "request_id",
        "status",
        "task",
    )

    def __init__(self) -> None:
        self.request_id = ""
        self.content_type = ""
        self.task: Task | None = None  # which model is asked
        self.body = b""
        self.body_read = False  # whole; who is refused then may keep the connection
        self.held = 0  # bytes of the body that the budget has counted
        self.arrived_s = time.monotonic()
        self.deadline_s = float("inf")
        self.model: Deployed | None = None  # what answers; one value for all of the request
        self.fault: RequestError | None = None  # set by a route; the outer layer writes it
        self.status = 0  # of the answer, once it has begun
        self.answer = b""  # with predictions, as a route gave it; for the request log

    def refuse_if_late(self) -> None:
        """Raise RequestError where nobody waits for the answer any more."""
        if time.monotonic() >= self.deadline_s:
            raise RequestError("deadline_exceeded")

    def refusal(
        self, fault: RequestError, *more: tuple[bytes, bytes], beside: Mapping[str, object] | None = None
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The headers, `more` included, and the body of an error's response; `beside` is as of RequestError.body."""
        body = fault.body(self.request_id, beside or {})
        headers = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", self.request_id.encode()),
            NOSNIFF,
            *more,
            *((name.encode(), value.encode()) for name, value in fault.headers.items()),
        ]
        return headers, body
