"""WebSockets of /v1/<task>/stream: let in or refused; then a piece of a text -> the predictions after it."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive, Scope, Send

from convoy.bundles.streaming import StreamState, begin
from serving.admission import Capacity, Security
from serving.batching import Threads, with_deadline
from serving.deployed import Deployed, require_loaded
from serving.errors import JSON, RequestError
from serving.metrics import dropped_of, errors_of, metrics_buffer, open_streams
from serving.models import DeployedModels
from serving.request import ABORT, TIMEOUT_S, RequestContext, checked_headers
from serving.request_log import RequestLog
from serving.routes import PIECES, explain_missing
from serving.streams import answer_message

MAX_STREAMS = 256  # open at once in one worker; each holds a state of some 2 kB, and a connection
RESPONSE = "websocket.http.response"  # ASGI's extension for an answer instead of a connection; uvicorn supports it
IDLE_S = 120.0  # between two pieces with words: longer than a writer pauses
# Of a connection, which keeps its model in memory even after another one is deployed. Longer than most talks.
LONGEST_S = 4 * 3600.0
SEND_S = 10.0  # until a client has read enough of what it was sent; the gateway waits as long
ABORT_AFTER_S = 15.0  # after the last message: a client that has not read it by then never will. uvicorn waits 10 s
# Close codes of RFC 6455 and, the last one, of IANA's list of them.
GOING_AWAY, VIOLATION, FAILURE, TRY_AGAIN_LATER = 1001, 1008, 1011, 1013
OVERLOADED = "as many pieces as can be read in time are waiting; connect and begin the text again after a second"
logger = logging.getLogger("bentoml.convoy")


class StreamSocket:
    """An ASGI app for the tasks that read in pieces: Host, Origin and key are checked as of a request.

    Each connection keeps its model to the end, whatever version is deployed meanwhile; where its task is withdrawn, the
    next piece ends it.
    """

    def __init__(
        self,
        threads: Threads,
        models: DeployedModels,
        security: Security,
        request_log: RequestLog | None = None,
        most_streams: int = MAX_STREAMS,
    ) -> None:
        self._threads, self._models, self._security = threads, models, security
        self._request_log, self._most_streams = request_log, most_streams
        self._open = 0
        self.capacity = Capacity(PIECES, MAX_STREAMS, OVERLOADED)  # each stream waits for one piece at a time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext()
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
                await self._converse(require_loaded(route.model), context, scope, receive, send)
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

    async def _converse(
        self, model: Deployed, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Accept the connection, whose first message was received, and answer to its end."""
        headers = [(b"x-request-id", context.request_id.encode()), *model.headers]
        abort: Callable[[], None] = scope.get(ABORT, lambda: None)
        try:
            await send({"type": "websocket.accept", "headers": headers})
            await self._answer_messages(model, context, receive, send)
        except _Dropped as dropped:
            metrics_buffer.count(dropped_of(dropped.why))
            if dropped.why == "slow":
                abort()
            else:
                await _close(send, GOING_AWAY if dropped.why in ("expired", "withdrawn") else VIOLATION, dropped.why)
        finally:
            # Unsent messages must not keep open a connection whose client does not read.
            asyncio.get_running_loop().call_later(ABORT_AFTER_S, abort)

    async def _answer_messages(self, model: Deployed, context: RequestContext, receive: Receive, send: Send) -> None:
        state, last_words_s = begin(model.predictor), time.monotonic()
        ends_s = last_words_s + LONGEST_S
        while (message := await _next_message(receive, last_words_s + IDLE_S, ends_s)) is not None:
            if context.task not in self._models.by_task:
                raise _Dropped("withdrawn")
            piece = _piece_context(context, model, message)
            try:
                answer, new_state = await self._answer(model, state, piece)
            except RequestError as error:
                piece.error, piece.status = error, error.status
                metrics_buffer.count(errors_of(error.code, piece.task or "none"))
                self._note(piece)
                await _send(send, error.body(context.request_id))
                # A client that has sent more pieces must not go on as if this one had been read.
                await _close(send, _close_code(error), error.code)
                return
            if _has_words(state, new_state):
                last_words_s = time.monotonic()
            state = new_state
            piece.answer, piece.status = answer, 200
            metrics_buffer.observe(model.metrics.seconds, time.monotonic() - piece.arrived_s)
            self._note(piece)
            await _send(send, answer)

    async def _answer(self, model: Deployed, state: StreamState, piece: RequestContext) -> tuple[bytes, StreamState]:
        try:
            if len(piece.body) > model.predictor.card.limits.max_body_bytes:
                raise RequestError("body_too_large")
            self.capacity.enter(piece.deadline_s)
            try:
                async with with_deadline(piece.deadline_s):
                    return await self._threads.run(lambda: answer_message(model, state, piece.body))
            finally:
                self.capacity.leave()
        except RequestError:
            raise
        except Exception:
            logger.exception("request %s failed", piece.request_id, extra={"convoy_request_id": piece.request_id})
            raise RequestError("internal_error") from None

    def _note(self, piece: RequestContext) -> None:
        if self._request_log is not None:
            self._request_log.note(piece.route.path if piece.route else "", b"", piece)


class _Dropped(Exception):
    """The server ends the connection; `why` is idle, expired, slow or withdrawn."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


async def _next_message(receive: Receive, idle_s: float, ends_s: float) -> Message | None:
    """The next message; None where the client has left. Raises _Dropped at either time (of time.monotonic())."""
    why = "idle" if idle_s < ends_s else "expired"
    left_s = min(idle_s, ends_s) - time.monotonic()
    if left_s <= 0:  # a timeout would not end a client whose next message has arrived already
        raise _Dropped(why)
    try:
        async with asyncio.timeout(left_s):
            message = await receive()
    except TimeoutError:
        raise _Dropped(why) from None
    return message if message["type"] == "websocket.receive" else None


async def _send(send: Send, body: bytes) -> None:
    """Raises _Dropped where the client does not read what it was sent."""
    try:
        async with asyncio.timeout(SEND_S):
            await send({"type": "websocket.send", "text": body.decode()})
    except TimeoutError:
        raise _Dropped("slow") from None


async def _close(send: Send, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(SEND_S):
            await send({"type": "websocket.close", "code": code, "reason": reason})
    except TimeoutError:
        pass  # the connection is aborted later


def _has_words(before: StreamState, after: StreamState) -> bool:
    """Whether a piece had a word or a part of one, and not only white space."""
    return after.words > before.words or after.pending.strip() != before.pending.strip()


def _close_code(error: RequestError) -> int:
    if error.code == "overloaded":
        return TRY_AGAIN_LATER
    return VIOLATION if error.status < 500 else FAILURE


def _piece_context(connection: RequestContext, model: Deployed, message: Message) -> RequestContext:
    """A message as a RequestContext of its own, with the request id of its connection."""
    piece = RequestContext()
    piece.request_id, piece.route, piece.task = connection.request_id, connection.route, connection.task
    piece.model = model
    piece.deadline_s, piece.content_type = piece.arrived_s + TIMEOUT_S, JSON
    text = message.get("text")
    piece.body = message.get("bytes") or b"" if text is None else text.encode("utf-8", "surrogatepass")
    return piece


async def _refuse(error: RequestError, context: RequestContext, scope: Scope, send: Send) -> None:
    metrics_buffer.count(errors_of(error.code, context.task or "none"))
    if RESPONSE not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    error.headers = {"connection": "close", **error.headers}
    headers, body = context.error_response(error)
    await send({"type": f"{RESPONSE}.start", "status": error.status, "headers": headers})
    await send({"type": f"{RESPONSE}.body", "body": body})
