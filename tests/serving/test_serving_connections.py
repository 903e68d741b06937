"""Heads and trailers without end, and requests, frames and pings without number, end; on a real uvicorn."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from serving import adapters, connections
from serving.request import WHOLE_BODY

LIMIT_S = 0.4
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LOOPS: list[asyncio.AbstractEventLoop] = []  # of the server, in which WebSockets were opened
CHUNKED = b"POST /read HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW = HEAD.replace(b"/ ", b"/slow ", 1) + b"\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
UPGRADE = HEAD + (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
MASK = b"\0\0\0\0"  # leaves the content as it is
PONG = b"\x8a\x80" + MASK
PING = b"\x89\xfd" + MASK + b"p" * 125
FIRST, NEXT, LAST = (start + b"\x80" + MASK for start in (b"\x01", b"\x00", b"\x80"))  # empty frames of one message


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.05)
    if scope["path"] == "/read":
        while (await receive()).get("more_body", False):
            pass
    said = "answered, the body is here" if WHOLE_BODY in scope else "answered before the body"
    await PlainTextResponse(said)(scope, receive, send)


async def echo(receive: Receive, send: Send) -> None:
    LOOPS.append(asyncio.get_running_loop())
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{len(message['text'])} characters"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_TIMEOUT_S", LIMIT_S)
        adapters.take_over_connections(workers=2)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = threading.Thread(target=server.run, args=([listening],))
            serving.start()
            while not server.started:
                time.sleep(0.01)
            yield listening.getsockname()[1]
            server.should_exit = True
            serving.join(10)


def send_parts(port: int, *parts: bytes, pause_s: float = 0.0) -> tuple[bytes, float]:
    """All that comes back until the other side closes, and how long that took."""
    began_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            while chunk := connection.recv(65_536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer, time.monotonic() - began_s


def error_of(answer: bytes) -> dict[str, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-content-type-options: nosniff" in head
    assert f"content-length: {len(body)}".encode() in head
    error: dict[str, str] = json.loads(body)["error"]
    assert f"x-request-id: {error['request_id']}".encode() in head
    return error


def test_a_connection_that_sends_nothing_is_closed_without_an_answer(port: int) -> None:
    answer, took_s = send_parts(port)
    assert answer == b"" and LIMIT_S <= took_s < LIMIT_S + 2


def test_a_head_that_trickles_is_a_408_however_often_a_byte_comes(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(HEAD)
        answer, began_s = b"", time.monotonic()
        connection.settimeout(0.05)
        while not answer and time.monotonic() < began_s + 5:
            connection.sendall(b"x")
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
        assert time.monotonic() - began_s < LIMIT_S + 2
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert error_of(answer)["code"] == "request_timeout"


def test_a_head_without_end_is_a_431(port: int) -> None:
    answer, _ = send_parts(
        port, HEAD, *[b"x-a: " + b"a" * 8000 + b"\r\n"] * (connections.MOST_HEAD_BYTES // 8000 + 1), pause_s=0.02
    )
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert error_of(answer)["code"] == "headers_too_large"


def test_the_second_request_of_a_connection_has_the_same_limits(port: int) -> None:
    answer, took_s = send_parts(port, HEAD + b"\r\n", HEAD, pause_s=0.1)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 408 " in answer
    assert took_s < LIMIT_S + 2


def test_a_head_in_pieces_that_ends_in_time_is_answered_and_its_connection_stays(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for _ in range(2):
            for part in (HEAD, b"x-a: b\r\n", b"\r\n"):
                connection.sendall(part)
                time.sleep(0.02)
            assert b"answered" in connection.recv(65_536)
        time.sleep(LIMIT_S * 1.5)  # no timer is left over; uvicorn's own for idle connections is 5 s
        connection.sendall(HEAD + b"\r\n")
        assert b"answered" in connection.recv(65_536)


def test_only_a_body_that_has_come_to_its_end_counts_as_here(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for body, rest, said in ((b"abc", b"", b"is here"), (b"ab", b"c", b"before"), (b"abc", b"", b"is here")):
            connection.sendall(POST + body)
            assert said in connection.recv(65_536)
            connection.sendall(rest)


def test_trailers_after_a_chunked_body_are_a_400(port: int) -> None:
    answer, _ = send_parts(port, CHUNKED, b"3\r\nabc\r\n", b"0\r\nx-a: b\r\n\r\n", pause_s=0.02)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert error_of(answer)["code"] == "malformed_request"


def test_one_trailer_without_end_is_a_431(port: int) -> None:
    parts = [b"a" * 8000] * (connections.MOST_HEAD_BYTES // 8000 + 2)
    answer, _ = send_parts(port, CHUNKED, b"3\r\nabc\r\n0\r\nx-a: ", *parts, pause_s=0.02)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert error_of(answer)["code"] == "headers_too_large"


def test_chunks_of_any_size_are_read(port: int) -> None:
    sizes = [1, 70_000, 3, 300_000, 100_000]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for _ in range(2):
            connection.sendall(CHUNKED)
            for size in sizes:
                connection.sendall(b"%x;name=value\r\n" % size)
                time.sleep(0.02)
                connection.sendall(b"a" * size + b"\r\n")
            connection.sendall(b"0\r\n")
            time.sleep(0.02)
            connection.sendall(b"\r\n")
            assert b"body is here" in connection.recv(65_536)


def test_pipelined_requests_without_number_are_not_kept(port: int) -> None:
    few, _ = send_parts(port, SLOW * 3 + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert few.count(b"HTTP/1.1 200 ") == 4
    many, _ = send_parts(port, SLOW + (HEAD + b"\r\n") * 3000)
    assert 1 <= many.count(b"HTTP/1.1 200 ") <= connections.MOST_PIPELINED + 2


def test_bytes_that_are_no_request_are_a_400(port: int) -> None:
    answer, _ = send_parts(port, b"\x16\x03\x01 a client that wants TLS\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert error_of(answer)["code"] == "malformed_request"


def test_a_request_before_such_bytes_is_answered(port: int) -> None:
    answer, _ = send_parts(port, SLOW, b"no request\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1


def upgraded(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it connects: a small window
    connection.settimeout(5)
    connection.connect(("127.0.0.1", port))
    connection.sendall(UPGRADE)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return connection


def test_pings_whose_pongs_stay_unread_end_the_connection(port: int) -> None:
    with upgraded(port) as connection:
        sent_bytes = 0
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while sent_bytes < 32_000_000:  # more than the system keeps for a connection
                connection.sendall(PING * 500)
                sent_bytes += 500 * len(PING)


def test_pings_that_are_read_are_all_answered(port: int) -> None:
    with upgraded(port) as connection:
        for _ in range(100):
            connection.sendall(PING * 100)
            left = 100 * (2 + 125)
            while left:
                left -= len(connection.recv(left))
        connection.sendall(FIRST + LAST)
        assert connection.recv(100) == b"\x81\x0c0 characters"


def test_a_message_of_too_many_frames_is_refused(port: int) -> None:
    with upgraded(port) as connection:
        for _ in range(2):  # they are counted for each message
            connection.sendall(FIRST + NEXT * (connections.MOST_FRAMES - 2) + LAST)
            assert connection.recv(100) == b"\x81\x0c0 characters"
        connection.sendall(FIRST + NEXT * connections.MOST_FRAMES)
        assert connection.recv(100)[2:4] == (1009).to_bytes(2, "big")
        assert connection.recv(100) == b""


def test_a_long_message_in_many_reads_is_one_frame(port: int) -> None:
    size = connections.MOST_MESSAGE_BYTES
    with upgraded(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"\x81\xff" + size.to_bytes(8, "big") + MASK)
        for _ in range(2 * connections.MOST_FRAMES):
            connection.sendall(b"a" * (size // (2 * connections.MOST_FRAMES)))
            time.sleep(0.0005)
        assert connection.recv(100) == b"\x81\x11262144 characters"


def longest_stall_s(port: int) -> float:
    """Of the server's event loop, by a heart that beats in it while one connection sends 100,000 frames at once."""
    stalls_s, over = [0.0], threading.Event()

    def beat(last_s: float) -> None:
        stalls_s.append(loop.time() - last_s)
        if not over.is_set():
            loop.call_later(0.001, beat, loop.time())

    with upgraded(port) as flood:
        loop = LOOPS[-1]
        loop.call_soon_threadsafe(beat, loop.time())
        flood.sendall(PONG * 100_000 + FIRST + LAST)
        assert flood.recv(100) == b"\x81\x0c0 characters"
        over.set()
    return max(stalls_s)


@pytest.mark.process
def test_a_flood_of_frames_stalls_nobody(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same flood read as a whole."""
    in_pieces_s = longest_stall_s(port)
    monkeypatch.setattr(connections, "PIECE_BYTES", 10**9)
    assert in_pieces_s < longest_stall_s(port) / 3


def test_messages_that_come_at_once_are_answered_in_order(port: int) -> None:
    lengths = [1, 9, 100, 5, 0] * 200
    answers = [b"%d characters" % length for length in lengths]
    sent = b"".join(b"\x81" + bytes([128 + length]) + MASK + b"a" * length for length in lengths)
    wanted = b"".join(b"\x81" + bytes([len(answer)]) + answer for answer in answers)
    with upgraded(port) as connection:
        assert len(sent) > 5 * connections.PIECE_BYTES
        connection.sendall(sent)
        got = b""
        while len(got) < len(wanted):
            got += connection.recv(65_536)
    assert got == wanted
