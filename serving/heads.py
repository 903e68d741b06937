"""The head of a request has limits too: uvicorn, which reads it before any ASGI app is asked, has none."""

import asyncio
import secrets

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.admission import MAX_HEADER_BYTES
from serving.faults import Fault
from serving.measures import faults_of
from serving.tally import tally

HEAD_TIMEOUT_S = 10.0  # from the connection, or from the first byte of the next request on it; nginx has the same
# Beyond what the outer layer refuses in its own words; a head that comes at once, in one read, is always left to it.
MOST_HEAD_BYTES = 4 * MAX_HEADER_BYTES


class HeadLimited(HttpToolsProtocol):
    """uvicorn's own protocol. A head that arrives in one piece, as nearly all do, starts no timer."""

    _in_head = True  # also while a new connection has sent nothing yet
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._end(Fault("headers_too_large", f"at most {MAX_HEADER_BYTES} bytes in all"))
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._end_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_late(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._end(Fault("request_timeout", f"the head did not arrive within {HEAD_TIMEOUT_S:g} s"))
        else:
            self.transport.close()

    def _end(self, fault: Fault) -> None:
        """Answer in the form of every other error, and close."""
        tally.count(faults_of(fault.code, "none"))
        request_id = secrets.token_hex(8)
        body = fault.body(request_id, {})
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[fault.status] + head.encode() + body)
        self.transport.close()


def limit_heads() -> None:
    """Let uvicorn, which BentoML starts with its defaults, take this protocol for its own."""
    auto.AutoHTTPProtocol = HeadLimited
