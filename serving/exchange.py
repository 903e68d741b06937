"""What the outer layer and the routes tell each other about one request."""

from serving.faults import Fault


class Exchange:
    """One request, in its ASGI scope as `convoy`."""

    __slots__ = ("body", "content_type", "fault", "request_id", "started")

    def __init__(self) -> None:
        self.request_id = ""
        self.content_type = ""
        self.body = b""
        self.fault: Fault | None = None  # set by a route; the outer layer writes it
        self.started = False
