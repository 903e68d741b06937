"""One request: what the layers share about it, and its head and body -> checked, or the RequestError it ends with."""

import asyncio
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from starlette.types import Receive, Scope

from serving.admission import SMALL_BYTES, Budget
from serving.deployed import Deployed
from serving.errors import JSON, RequestError
from serving.routes import Route, explain_missing

# A header of every answer: no browser may guess another type than it says, such as a page for JSON.
NOSNIFF = (b"x-content-type-options", b"nosniff")
WHOLE_BODY = "convoy.whole"  # in the ASGI scope of a request whose whole body came with its headers
ABORT = "convoy.abort"  # in that of a WebSocket: ends the connection at once, whatever waits to be sent
# From a request's whole body to its answer. 16 million pixels, the limit of one request, take up to 0.7 s (WebP),
# 20 MB of nothing but empty segments 5 s, in a form of several twice that; the rest is for waiting for a thread.
TIMEOUT_S = 10
# A body has the time to begin, and then what the largest allowed one takes at the slowest rate worth waiting for:
# 50 s for the 20 MB of images. A sender that trickles holds its connection that long, and no thread.
BODY_GRACE_S = 10.0
MIN_BODY_RATE = 500_000  # bytes per second, 4 Mbit/s: a plain DSL uplink
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16_384
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SINGLE_HEADERS = frozenset(
    {
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"host",
        b"origin",
        b"authorization",
        b"x-request-id",
        b"x-request-timeout-ms",
    }
)


@dataclass(slots=True)
class RequestContext:
    """What the layers share about one request. Times are of time.monotonic(), which the event loop counts by too."""

    request_id: str = ""
    content_type: str = ""
    query: bytes = b""
    route: Route | None = None
    task: str | None = None  # whose model the request is for
    body: bytes = b""
    body_read: bool = False  # whole; a request that is refused then may keep its connection
    held_bytes: int = 0  # of the body, as the budget has counted
    arrived_s: float = field(default_factory=time.monotonic)
    deadline_s: float = float("inf")
    model: Deployed | None = None  # the one model of the whole request
    error: RequestError | None = None  # what it ends with
    status: int = 0  # of the answer, once it has started
    answer: bytes = b""  # of a model's route, without the request id; for the request log

    def refuse_if_late(self) -> None:
        """Raise RequestError where the deadline has passed."""
        if time.monotonic() >= self.deadline_s:
            raise RequestError("deadline_exceeded")

    def refuse_parameters(self) -> None:
        """Raise RequestError where the request has a query."""
        if self.query:
            raise RequestError("invalid_parameter", "this route takes no parameter")

    def error_response(self, error: RequestError) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body of an error's response."""
        body = error.body(self.request_id)
        headers = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", self.request_id.encode()),
            NOSNIFF,
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        return headers, body


class SenderGone(Exception):
    """The client left before its body was here; nobody waits for an answer."""


def checked_headers(scope: Scope, context: RequestContext) -> dict[bytes, bytes]:
    """The headers by name. Raises RequestError for too many, too long ones, and for one repeated that must not be."""
    raw: list[tuple[bytes, bytes]] = scope["headers"]
    headers = dict(raw)
    sent_id = headers.get(b"x-request-id", b"")
    context.request_id = sent_id.decode() if _REQUEST_ID.fullmatch(sent_id) else secrets.token_hex(8)
    if len(raw) > MAX_HEADERS or sum(map(len, chain.from_iterable(raw))) > MAX_HEADER_BYTES:
        raise RequestError("headers_too_large", f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes in all")
    if len(headers) != len(raw):
        names = [name for name, _ in raw]
        if any(name in _SINGLE_HEADERS and names.count(name) > 1 for name in headers):
            raise RequestError("malformed_request", "a header stands twice that may stand once")
    if b"transfer-encoding" in headers and b"content-length" in headers:
        raise RequestError("malformed_request", "content-length and transfer-encoding exclude each other")
    return headers


def checked_route(
    by_path: Mapping[str, Route], scope: Scope, headers: dict[bytes, bytes], context: RequestContext
) -> Route:
    """The route of a request. Raises RequestError where there is none, or where it does not take what is sent."""
    route = by_path.get(scope["path"])
    if route is None:
        raise RequestError("not_found", explain_missing(scope["path"], by_path))
    if scope["method"] not in route.methods:
        allowed = ", ".join(route.methods)
        raise RequestError("method_not_allowed", f"{scope['path']} answers {allowed}", {"allow": allowed})
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError("unsupported_media_type", "only bodies without content-encoding are read")
    content_type = context.content_type = headers.get(b"content-type", b"").decode("latin-1")
    media_type, _, options = content_type.lower().partition(";")
    media_type = media_type.strip(" \t")
    if route.media_types:
        if media_type not in route.media_types:
            raise RequestError("unsupported_media_type", f"the content type must be {' or '.join(route.media_types)}")
        if media_type == JSON and "charset" in options and not re.search(r"charset\s*=\s*\"?utf-?8\b", options):
            raise RequestError("unsupported_media_type", "JSON is UTF-8; another charset is not read")
    elif "pickle" in media_type:
        raise RequestError("unsupported_media_type", "pickles are never read")
    return route


def checked_deadline_s(headers: dict[bytes, bytes], context: RequestContext) -> float:
    """When the client stops waiting, of time.monotonic(): as its header says, and TIMEOUT_S from now at the latest."""
    latest_s = time.monotonic() + TIMEOUT_S
    timeout_ms = headers.get(b"x-request-timeout-ms")
    if timeout_ms is None:
        return latest_s
    if not timeout_ms.isdigit() or len(timeout_ms) > 9 or int(timeout_ms) == 0:
        raise RequestError(
            "invalid_parameter", "x-request-timeout-ms must be a whole number of milliseconds, 1 or more"
        )
    return min(context.arrived_s + int(timeout_ms) / 1000, latest_s)


def body_timeout_s(max_bytes: int) -> float:
    """How long a body of at most `max_bytes` may take to arrive."""
    return BODY_GRACE_S + max_bytes / MIN_BODY_RATE


async def read_body(
    scope: Scope,
    receive: Receive,
    headers: dict[bytes, bytes],
    max_bytes: int,
    budget: Budget,
    context: RequestContext,
) -> None:
    """Read the whole body into `context`. Raises RequestError as soon as it is too large or takes too long."""
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or len(declared) > 20:
        raise RequestError("malformed_request", "content-length is not a number")
    if int(declared) > max_bytes:
        raise _too_large(max_bytes)
    if WHOLE_BODY in scope:  # a timeout that cannot expire costs as much as all checks of the headers
        await _receive_all(receive, max_bytes, budget, context)
        return
    timeout_s = body_timeout_s(max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            await _receive_all(receive, max_bytes, budget, context)
    except TimeoutError:
        raise RequestError("request_timeout", f"the body did not arrive within {timeout_s:g} s") from None


async def _receive_all(receive: Receive, max_bytes: int, budget: Budget, context: RequestContext) -> None:
    chunks: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise SenderGone
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        if length > max_bytes:
            raise _too_large(max_bytes)
        if length > SMALL_BYTES:
            budget.hold(length - context.held_bytes)
            context.held_bytes = length
        if not message.get("more_body", False):
            break
    context.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    context.body_read = True


def _too_large(max_bytes: int) -> RequestError:
    return RequestError("body_too_large", f"the body is larger than {max_bytes} bytes")
