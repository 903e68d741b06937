"""WebSockets of /v1/texts/stream: a message with a piece of a text -> a message with what is known after it."""

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.types import Message, Receive, Scope, Send

from convoy.bundles.streaming import StreamState, begin
from serving.admission import TIMEOUT_S
from serving.capacity import Capacity
from serving.connections import ABORT
from serving.deployed import Deployed, DeployedModels
from serving.errors import RequestError
from serving.metrics import dropped_of, errors_of
from serving.metrics_buffer import tally
from serving.request_context import RequestContext
from serving.request_log import RequestLog
from serving.routes import JSON, PIECES, STREAM_TEXTS
from serving.stream_answers import answer_message
from serving.threads import Threads, until
from serving.websocket_gate import MAX_STREAMS

IDLE_S = 120.0  # between two pieces with words: longer than who writes stops to think
# Of a connection: it keeps its model in memory, even where another one was deployed since. Longer than most talks.
LONGEST_S = 4 * 3600.0
SEND_S = 10.0  # until a client has taken enough of what it was sent before; the gateway has as much
GONE_S = 15.0  # after the last message: who has not read it by then never will. uvicorn waits 10 s for a farewell
# Close codes of RFC 6455 and, the last one, of IANA's list of them.
GOING_AWAY, VIOLATION, FAILURE, TRY_AGAIN_LATER = 1001, 1008, 1011, 1013
OVERLOADED = "as many pieces as can be read in time are waiting; connect and begin the text again after a second"
logger = logging.getLogger("bentoml.convoy")


class StreamSocket:
    """An ASGI app for one path. Each connection keeps its model to the end, whatever is deployed meanwhile."""

    def __init__(self, models: DeployedModels, threads: Threads, request_log: RequestLog | None = None) -> None:
        self._models, self._threads, self._request_log = models, threads, request_log
        self.capacity = Capacity(PIECES, MAX_STREAMS, OVERLOADED)  # each stream waits for one piece at a time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection that the outer layer has let in, and whose first message it has taken."""
        model = self._models.by_task["text-stream"]
        if not isinstance(model, Deployed):
            raise RequestError("model_unavailable", "the text-stream model is not loaded, /readyz says why")
        exchange: RequestContext = scope["convoy"]
        headers = [(b"x-request-id", exchange.request_id.encode()), *model.headers]
        abort: Callable[[], None] = scope.get(ABORT, lambda: None)
        try:
            await send({"type": "websocket.accept", "headers": headers})
            await self._converse(model, exchange, receive, send)
        except _Dropped as dropped:
            tally.count(dropped_of(dropped.why))
            if dropped.why == "slow":
                abort()
            else:
                await _close(send, GOING_AWAY if dropped.why == "expired" else VIOLATION, dropped.why)
        finally:
            # What still waits to be sent must not keep a connection whose client does not read.
            asyncio.get_running_loop().call_later(GONE_S, abort)

    async def _converse(self, model: Deployed, exchange: RequestContext, receive: Receive, send: Send) -> None:
        state, heard_s = begin(model.predictor), time.monotonic()
        ends_s = heard_s + LONGEST_S
        while (message := await _next(receive, heard_s + IDLE_S, ends_s)) is not None:
            piece = _piece_of(exchange, model, message)
            try:
                answer, later = await self._answer(model, state, piece)
            except RequestError as fault:
                piece.fault, piece.status = fault, fault.status
                tally.count(errors_of(fault.code, "text-stream"))
                self._note(piece)
                await _send(send, fault.body(exchange.request_id, {}))
                # A client that has sent more already must not go on as if this piece had been read.
                await _close(send, _close_code(fault), fault.code)
                return
            if _has_words(state, later):
                heard_s = time.monotonic()
            state = later
            piece.answer, piece.status = answer, 200
            tally.observe(model.measures.seconds, time.monotonic() - piece.arrived_s)
            self._note(piece)
            await _send(send, answer)

    async def _answer(self, model: Deployed, state: StreamState, piece: RequestContext) -> tuple[bytes, StreamState]:
        try:
            self.capacity.enter(piece.deadline_s)
            try:
                async with until(piece.deadline_s):
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
            self._request_log.note(STREAM_TEXTS.path, b"", piece)


class _Dropped(Exception):
    """A client that is waited for no longer."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


async def _next(receive: Receive, idle_s: float, ends_s: float) -> Message | None:
    """The next message; None where the client has left. Raises _Dropped at either time (of time.monotonic())."""
    why = "idle" if idle_s < ends_s else "expired"
    left_s = min(idle_s, ends_s) - time.monotonic()
    if left_s <= 0:  # a timeout would not end those whose next message is here already
        raise _Dropped(why)
    try:
        async with asyncio.timeout(left_s):
            message = await receive()
    except TimeoutError:
        raise _Dropped(why) from None
    return message if message["type"] == "websocket.receive" else None


async def _send(send: Send, body: bytes) -> None:
    """Raises _Dropped where the client does not take what it was sent."""
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
        pass  # it is aborted


def _has_words(before: StreamState, after: StreamState) -> bool:
    """Whether a piece had a word or a part of one, and not only white space."""
    return after.words > before.words or after.pending.strip() != before.pending.strip()


def _close_code(fault: RequestError) -> int:
    if fault.code == "overloaded":
        return TRY_AGAIN_LATER
    return VIOLATION if fault.status < 500 else FAILURE


def _piece_of(connection: RequestContext, model: Deployed, message: Message) -> RequestContext:
    """A message as an exchange of its own, with the request id of its connection."""
    piece = RequestContext()
    piece.request_id, piece.task, piece.model = connection.request_id, "text-stream", model
    piece.deadline_s, piece.content_type = piece.arrived_s + TIMEOUT_S, JSON
    text = message.get("text")
    piece.body = message.get("bytes") or b"" if text is None else text.encode("utf-8", "surrogatepass")
    return piece
