"""The outer ASGI layer: what may not come in is refused here, and every error leaves in one form."""

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.deployed import Deployed, DeployedModels, Unavailable
from serving.faults import Fault, from_status
from serving.routes import BY_PATH, JSON, RouteSpec

if TYPE_CHECKING:
    from prometheus_client import Counter

BODY_TIMEOUT_S = 10.0  # 4 MB at 3 Mbit/s
LINGER_S = 2.0  # how long a refused sender may go on sending, so that it can read the answer
LINGER_BYTES = 64_000_000
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16_384
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_ONCE = frozenset({b"content-type", b"content-length", b"content-encoding", b"host", b"x-request-id"})
logger = logging.getLogger("bentoml.convoy")


class SenderGone(Exception):
    """The client left before its body was here; nobody waits for an answer."""


class Exchange:
    """What the outer layer and the routes tell each other about one request; in the scope as `convoy`."""

    __slots__ = ("body", "content_type", "fault", "request_id", "started")

    def __init__(self) -> None:
        self.request_id = ""
        self.content_type = ""
        self.body = b""
        self.fault: Fault | None = None  # set by a route; the outer layer writes it
        self.started = False


class Shell:
    """Wraps a whole BentoML app; BentoML's own middlewares see only what passed."""

    def __init__(self, app: ASGIApp, models: DeployedModels) -> None:
        self.app = app
        self.models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange()
        try:
            headers = _checked_headers(scope, exchange)
            route = _checked_route(scope, headers, exchange)
            if route.task is not None:
                exchange.body = await _read_body(receive, headers, self._max_body_bytes(route))
                receive = _replay(exchange.body, receive)
        except Fault as fault:
            await _refuse(fault, exchange, scope, receive, send)
            return
        except SenderGone:
            return
        await self._pass_on(scope, receive, send, exchange)

    def _max_body_bytes(self, route: RouteSpec) -> int:
        assert route.task is not None
        model = self.models.by_task[route.task]
        if isinstance(model, Unavailable):
            raise Fault("model_unavailable", f"the {route.task} model is not loaded, /readyz says why")
        return model.predictor.card.limits.max_body_bytes

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.started = True
                if message["status"] >= 400:
                    fault = exchange.fault = exchange.fault or from_status(message["status"])
                    await _send_fault(fault, exchange, send, beside=self._beside(fault))
                    return
                headers = [*message.get("headers", ()), (b"x-request-id", exchange.request_id.encode())]
                message = {**message, "headers": headers}
            elif exchange.fault is not None:
                return  # the body that belonged to the other layer's error
            await send(message)

        scope["convoy"] = exchange
        try:
            await self.app(scope, receive, respond)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            if not exchange.started:
                await _send_fault(Fault("internal_error"), exchange, send)

    def _beside(self, fault: Fault) -> dict[str, object]:
        if fault.code != "not_ready":
            return {}
        return {"tasks": {task: describe(model) for task, model in self.models.by_task.items()}}


def describe(model: Deployed | Unavailable) -> dict[str, str]:
    """TaskState of schemas.py."""
    if isinstance(model, Deployed):
        return {"state": "ready"}
    return {"state": "unavailable", "reason": model.reason}


def _checked_headers(scope: Scope, exchange: Exchange) -> dict[bytes, bytes]:
    """The headers by name. Raises Fault for too many, too long ones, and for two of a kind that must be one."""
    raw: list[tuple[bytes, bytes]] = scope["headers"]
    headers = dict(raw)
    given = headers.get(b"x-request-id", b"")
    exchange.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    if len(raw) > MAX_HEADERS or sum(len(name) + len(value) for name, value in raw) > MAX_HEADER_BYTES:
        raise Fault("headers_too_large", f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes in all")
    if len(headers) != len(raw):
        names = [name for name, _ in raw]
        if any(name in _ONCE and names.count(name) > 1 for name in headers):
            raise Fault("malformed_request", "a header stands twice that may stand once")
    if b"transfer-encoding" in headers and b"content-length" in headers:
        raise Fault("malformed_request", "content-length and transfer-encoding exclude each other")
    return headers


def _checked_route(scope: Scope, headers: dict[bytes, bytes], exchange: Exchange) -> RouteSpec:
    """The route of a request. Raises Fault where there is none, or where it does not take what is sent."""
    route = BY_PATH.get(scope["path"])
    if route is None:
        raise Fault("not_found")
    if scope["method"] not in route.methods:
        allowed = ", ".join(route.methods)
        raise Fault("method_not_allowed", f"{scope['path']} answers {allowed}", {"allow": allowed})
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Fault("unsupported_media_type", "only bodies without content-encoding are read")
    content_type = exchange.content_type = headers.get(b"content-type", b"").decode("latin-1")
    media_type, _, options = content_type.lower().partition(";")
    media_type = media_type.strip(" \t")
    if route.media_types:
        if media_type not in route.media_types:
            raise Fault("unsupported_media_type", f"the content type must be {' or '.join(route.media_types)}")
        if media_type == JSON and "charset" in options and not re.search(r"charset\s*=\s*\"?utf-?8\b", options):
            raise Fault("unsupported_media_type", "JSON is UTF-8; another charset is not read")
    elif "pickle" in media_type:
        raise Fault("unsupported_media_type", "pickles are never read")
    return route


async def _read_body(receive: Receive, headers: dict[bytes, bytes], max_bytes: int) -> bytes:
    """The whole body. Raises Fault as soon as it is known to be too large or takes too long."""
    too_large = Fault("body_too_large", f"the body is larger than {max_bytes} bytes")
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or len(declared) > 20:
        raise Fault("malformed_request", "content-length is not a number")
    if int(declared) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise SenderGone
                chunks.append(message.get("body", b""))
                length += len(chunks[-1])
                if length > max_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise Fault("request_timeout", f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def _refuse(fault: Fault, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once; then let a client that is still sending finish, or it would see a reset and no answer."""
    sends_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
    if not sends_body:
        await _send_fault(fault, exchange, send)
        return
    fault.headers["connection"] = "close"
    await _send_fault(fault, exchange, send, more_body=True)
    received = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while received <= LINGER_BYTES:
                message = await receive()
                received += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


async def _send_fault(
    fault: Fault, exchange: Exchange, send: Send, *, more_body: bool = False, beside: Mapping[str, object] | None = None
) -> None:
    _faults_total().labels(code=fault.code).inc()
    body = fault.body(exchange.request_id, beside or {})
    headers = [
        (b"content-type", JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", exchange.request_id.encode()),
        *((name.encode(), value.encode()) for name, value in fault.headers.items()),
    ]
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})


@cache
def _faults_total() -> "Counter":
    # Late: BentoML sets the folder that the workers' metrics share before prometheus_client may be imported.
    from prometheus_client import Counter

    return Counter("convoy_faults_total", "Answers of 4xx and 5xx, refused at the door or later", ["code"])
