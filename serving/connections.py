"""What uvicorn does not limit before it calls the ASGI app: size and time of the headers, frames of a WebSocket."""

import asyncio
import secrets
import time
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Request, TextMessage

from serving.errors import RequestError
from serving.metrics import errors_of, metrics_buffer
from serving.request import ABORT, MAX_HEADER_BYTES, NOSNIFF, WHOLE_BODY

HEAD_TIMEOUT_S = 10.0  # from the connection, or from the first byte of the next request on it; nginx has the same
# Beyond what the middleware refuses in its own words; headers that come in one read are always left to it.
MOST_HEAD_BYTES = 4 * MAX_HEADER_BYTES
# Requests that wait on one connection for the answer before theirs. uvicorn reads on after each answer, however
# many wait: 375,000 of 32 bytes took 600 MB.
MOST_PIPELINED = 64
# Of a message of a WebSocket: a piece of 20,000 characters, each written as two escapes, has 240,000.
MOST_MESSAGE_BYTES = 262_144
# Of a message: the longest one in frames of 1 KiB; browsers send one. 100,000 empty ones kept a worker busy for 0.8 s.
MOST_FRAMES = 256
# Read before the worker turns to other connections: some 700 empty frames, which take 10 ms. uvloop reads 256,000 bytes
# at once, and as many frames as are in them kept a worker busy for 0.6 s.
PIECE_BYTES = 4096
TOO_BIG = 1009  # close code of RFC 6455


class _NoTrailers(list[tuple[bytes, bytes]]):
    """Where uvicorn puts a header that comes after a chunk; a check of each header would slow down every request."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        raise ValueError("trailers are not read")  # ends the parser, and send_400_response answers


class Connection(HttpToolsProtocol):
    """uvicorn's own protocol, with limits. Headers that arrive in one piece, as nearly all do, start no timer."""

    shared = False  # whether other workers listen at the same socket
    _in_head = True  # also while a new connection has sent nothing yet
    _in_chunk_head = False  # before the bytes of a chunk; the last chunk has none, and trailers may follow it
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.shared:
            # Some 50 us, in which another worker takes the next one. Without it a worker takes all that are waiting:
            # in 9 of 24 trials all 16 connections were with one of two workers, and the other one idle; with it in 0.
            time.sleep(1e-9)
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end_on_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_chunk_head, self._head_bytes = True, False, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        if len(self.pipeline) > MOST_PIPELINED:
            raise ValueError("too many requests wait on one connection")

    def on_chunk_header(self) -> None:
        self.headers = _NoTrailers()
        self._in_chunk_head, self._head_bytes = True, 0

    def on_body(self, body: bytes) -> None:
        self._in_chunk_head = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_chunk_head = False
        super().on_message_complete()
        self.scope[WHOLE_BODY] = True  # type: ignore[literal-required]

    def data_received(self, data: bytes) -> None:
        if self._in_chunk_head:
            self._head_bytes += len(data)  # before it is parsed: a chunk may begin and end in it
        super().data_received(data)
        if not (self._in_head or self._in_chunk_head) or self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._end_with(RequestError("headers_too_large", f"at most {MAX_HEADER_BYTES} bytes in all"))
        elif self._in_head and self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end_on_timeout)

    def handle_websocket_upgrade(self) -> None:
        # wsproto reads these as ASCII; its exception would leave the connection among those that uvicorn keeps.
        values = (value for name, value in self.headers if name == b"host" or name.startswith(b"sec-websocket-"))
        if all(map(bytes.isascii, values)):
            super().handle_websocket_upgrade()
        else:
            self._end_with(RequestError("malformed_request", "a header of the handshake is not ASCII"))

    def send_400_response(self, msg: str) -> None:
        """Called where uvicorn cannot parse; it would answer in plain text."""
        self._end_with(
            RequestError("malformed_request", "this is not a request of HTTP/1.1, or it has trailers after its body")
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_on_timeout(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._end_with(RequestError("request_timeout", f"the head did not arrive within {HEAD_TIMEOUT_S:g} s"))
        else:
            self.transport.close()

    def _end_with(self, error: RequestError) -> None:
        """Answer in the form of every other error, and close; a request before it gets only its own answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started or not self.cycle.more_body or self.pipeline:
                self.shutdown()
                return
            self.cycle.disconnected = True  # the app is not to answer as well
            self.cycle.message_event.set()
        metrics_buffer.count(errors_of(error.code, "none"))
        request_id = secrets.token_hex(8)
        body = error.body(request_id)
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n"
        ).encode()
        self.transport.write(STATUS_LINE[error.status] + head + b"%b: %b\r\n\r\n" % NOSNIFF + body)
        self.transport.close()


class LimitedWebSocketProtocol(WSProtocol):
    """uvicorn's own protocol for WebSockets, with limits; it closes those that answer no ping."""

    _frames = 0  # of the message that is being read
    _next_read: asyncio.Handle | None = None  # reads the next piece of what was received

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        config.ws_max_size = MOST_MESSAGE_BYTES
        # Each connection would hold some 300 kB for it, and a small message could become a large one.
        config.ws_per_message_deflate = False
        super().__init__(config, *arguments, **options)
        self._unread = bytearray()

    def data_received(self, data: bytes) -> None:
        is_small = len(data) <= PIECE_BYTES and not self._unread
        if is_small or self.conn.state is ConnectionState.CONNECTING:
            super().data_received(data)
        else:
            self._unread += data
            self._read_on()

    async def receive(self) -> Any:
        message = await super().receive()
        self._read_on()
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        self._read_on()  # the close frame of the client is awaited also where messages are not read

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread.clear()
        super().connection_lost(exc)

    def _read_on(self) -> None:
        """Read the received bytes in pieces, one per turn of the event loop; meanwhile nothing from the network."""
        if self._unread and not self.transport.is_closing():
            self.transport.pause_reading()
            if self._next_read is None and not self.read_paused:
                self._next_read = self.loop.call_soon(self._read_piece)

    def _read_piece(self) -> None:
        self._next_read = None
        piece = bytes(self._unread[:PIECE_BYTES])
        del self._unread[:PIECE_BYTES]
        if piece and not self.transport.is_closing():
            super().data_received(piece)
            if self._unread:
                self._read_on()
            elif not (self.read_paused or self.transport.is_closing()):
                self.transport.resume_reading()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]

    def handle_message(self, event: TextMessage | BytesMessage) -> None:
        self._frames += event.frame_finished  # wsproto also has events for a part of a frame
        if self._frames > MOST_FRAMES:
            self._refuse(f"a message has at most {MOST_FRAMES} frames")
            return
        if event.message_finished:
            self._frames = 0
        super().handle_message(event)

    def handle_ping(self, event: Ping) -> None:
        """Answer, unless the client reads nothing of what it was sent: uvicorn would keep every pong in memory."""
        if self.writable.is_set():
            super().handle_ping(event)
        else:
            self.transport.abort()

    def _refuse(self, reason: str) -> None:
        self.close_sent = True  # what the client sends after this is not read
        self.queue.put_nowait({"type": "websocket.disconnect", "code": TOO_BIG, "reason": reason})
        if not self.transport.is_closing():
            self.transport.write(self.conn.send(CloseConnection(code=TOO_BIG, reason=reason)))
            self.transport.close()
