"""The handshake of a WebSocket -> let in, if there is a place, or refused in the form of every other error."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.admission import checked_headers
from serving.errors import RequestError
from serving.metrics import errors_of, open_streams
from serving.metrics_buffer import tally
from serving.request_context import RequestContext
from serving.routes import STREAM_TEXTS
from serving.security import Security

MAX_STREAMS = 256  # open at once in one worker; each holds its state of some 2 kB, and a connection
RESPONSE = "websocket.http.response"  # ASGI's extension for an answer instead of a connection; uvicorn has it


class WebSocketGate:
    """The outer layer of WebSockets: the same Host, Origin and key are wanted as of a request."""

    def __init__(self, app: ASGIApp, access: Security, most_streams: int = MAX_STREAMS) -> None:
        self._app, self._access, self._most_streams = app, access, most_streams
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["convoy"] = RequestContext()
        exchange.request_id = secrets.token_hex(8)  # until the headers are known
        await receive()
        try:
            if scope["path"] != STREAM_TEXTS.path:
                raise RequestError("not_found")
            self._access.check(checked_headers(scope, exchange))
            exchange.task = STREAM_TEXTS.task
            if scope["query_string"]:
                raise RequestError("invalid_parameter", "this route takes no parameter")
            with self._place():
                await self._app(scope, receive, send)
        except RequestError as fault:  # all of them come before the connection is accepted
            await _refuse(fault, exchange, scope, send)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= self._most_streams:
            raise RequestError("overloaded", "as many streams as can be served are open; ask again after Retry-After")
        self._open += 1
        tally.show(open_streams(), self._open)
        try:
            yield
        finally:
            self._open -= 1
            tally.show(open_streams(), self._open)


async def _refuse(fault: RequestError, exchange: RequestContext, scope: Scope, send: Send) -> None:
    tally.count(errors_of(fault.code, exchange.task or "none"))
    if RESPONSE not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    headers, body = exchange.refusal(fault, (b"connection", b"close"))
    await send({"type": f"{RESPONSE}.start", "status": fault.status, "headers": headers})
    await send({"type": f"{RESPONSE}.body", "body": body})
