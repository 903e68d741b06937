"""The handshake of a WebSocket -> accepted, if there is room, or refused in the form of every other error."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.admission import Security
from serving.errors import RequestError
from serving.metrics import errors_of, open_streams
from serving.metrics_buffer import metrics_buffer
from serving.models import DeployedModels
from serving.request import RequestContext, checked_headers
from serving.routes import explain_missing

MAX_STREAMS = 256  # open at once in one worker; each holds a state of some 2 kB, and a connection
RESPONSE = "websocket.http.response"  # ASGI's extension for an answer instead of a connection; uvicorn supports it


class WebSocketGate:
    """The outer layer of WebSockets: Host, Origin and key are checked as of a request."""

    def __init__(
        self, app: ASGIApp, models: DeployedModels, security: Security, most_streams: int = MAX_STREAMS
    ) -> None:
        self._app, self._models, self._security, self._most_streams = app, models, security, most_streams
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = scope["convoy"] = RequestContext()
        context.request_id = secrets.token_hex(8)  # until the headers are read
        await receive()
        try:
            route = self._models.by_path.get(scope["path"])
            if route is None or not route.in_pieces:
                raise RequestError("not_found", explain_missing(scope["path"], self._models.by_path))
            self._security.check(checked_headers(scope, context))
            context.route, context.task = route, route.task
            if scope["query_string"]:
                raise RequestError("invalid_parameter", "this route takes no parameter")
            with self._count_open():
                await self._app(scope, receive, send)
        except RequestError as error:  # all are raised before the connection is accepted
            await _refuse(error, context, scope, send)

    @contextmanager
    def _count_open(self) -> Iterator[None]:
        if self._open >= self._most_streams:
            raise RequestError("overloaded", "as many streams as can be served are open; ask again after Retry-After")
        self._open += 1
        metrics_buffer.set_gauge(open_streams(), self._open)
        try:
            yield
        finally:
            self._open -= 1
            metrics_buffer.set_gauge(open_streams(), self._open)


async def _refuse(error: RequestError, context: RequestContext, scope: Scope, send: Send) -> None:
    metrics_buffer.count(errors_of(error.code, context.task or "none"))
    if RESPONSE not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    headers, body = context.error_response(error, (b"connection", b"close"))
    await send({"type": f"{RESPONSE}.start", "status": error.status, "headers": headers})
    await send({"type": f"{RESPONSE}.body", "body": body})
