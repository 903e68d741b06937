"""WebSockets at a real `bentoml serve`: many at once, slow and dead clients, a promotion while one is open."""

import asyncio
import base64
import json
import os
import socket
import statistics
import struct
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_bundles
from conftest import WRITERS, Server, deploy, error_of, serve
from httpx_ws import AsyncWebSocketSession, WebSocketDisconnect, aconnect_ws, connect_ws

from convoy.bundles.bundle import read_release
from serving import connections, websockets
from serving.deployed import Deployed

pytestmark = pytest.mark.process
PATH = "/v1/reviews-stream/stream"
STREAMS = 200


def send_piece(session: Any, text: str, final: bool = False) -> Any:
    session.send_text(json.dumps({"text": text, "final": final}))
    return json.loads(session.receive_text(timeout=10))


class RawSocket:
    """A WebSocket by hand, which reads only when it is told to and answers no ping."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it connects: a small window
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", server.port))
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.socket.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        assert answer.startswith(b"HTTP/1.1 101"), answer

    def __enter__(self) -> "RawSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, text: str) -> None:
        payload = json.dumps({"text": text}).encode()
        mask = b"\0\0\0\0"  # a mask of zeros leaves the payload as it is
        length = len(payload)
        size = bytes([0x80 | length]) if length < 126 else bytes([0x80 | 126]) + struct.pack(">H", length)
        self.socket.sendall(b"\x81" + size + mask + payload)

    def ends_within_s(self, limit_s: float) -> bool:
        """Whether the server ends it; nothing that it has sent is waited for."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            try:
                self.socket.send(b"")
                if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return True
                self.socket.sendall(b"\x8a\x80\0\0\0\0")  # a pong that nobody asked for shows whether it lives
            except OSError:
                return True
            time.sleep(0.2)
        return False


def counted(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and not line.startswith("#"))


def test_a_stream_over_the_network_answers_each_piece(server: Server, stream_model: Deployed) -> None:
    with connect_ws(f"{server.url}{PATH}") as session:
        assert session.response.headers["x-model-digest"] == stream_model.release.digest
        assert send_piece(session, "the goo")["words"][0]["word"] == "the"
        answer = send_piece(session, "d film", final=True)
        assert [word["word"] for word in answer["words"]] == ["good", "film"]
        assert answer["model"]["digest"] == stream_model.release.digest


def test_a_state_over_the_network_is_good_for_every_worker_of_a_server(tmp_path: Path) -> None:
    for task in WRITERS:
        deploy(tmp_path / "deployed", task)
    with serve(tmp_path / "deployed", tmp_path, CONVOY_WORKERS="2") as server:
        state = None
        for _ in range(20):
            # A connection of its own each time, so that both workers are asked.
            answer = httpx.post(f"{server.url}{PATH}", json={"text": "good ", "state": state})
            assert answer.status_code == 200, answer.text
            state = answer.json()["state"]


def test_a_handshake_is_refused_in_the_form_of_every_error(server: Server) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    headers = {**upgrade, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==", "origin": "http://evil.example"}
    refused = httpx.get(f"{server.url}{PATH}", headers=headers)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "forbidden_origin")


def test_a_message_over_the_limit_ends_the_connection(server: Server) -> None:
    with connect_ws(f"{server.url}{PATH}") as session:
        session.send_text(json.dumps({"text": "a" * connections.MOST_MESSAGE_BYTES}))
        with pytest.raises(WebSocketDisconnect) as ended:
            session.receive_text(timeout=10)
        assert ended.value.code == 1009


def test_a_promotion_lets_an_open_stream_finish_on_its_version(tmp_path: Path) -> None:
    for task in WRITERS:
        deploy(tmp_path / "deployed", task)
    old = read_release(tmp_path / "deployed" / "reviews-stream" / "current")
    with serve(tmp_path / "deployed", tmp_path) as server, connect_ws(f"{server.url}{PATH}") as session:
        first = send_piece(session, "the film ")
        folder = deploy(
            tmp_path / "deployed", "reviews-stream", lambda folder: tiny_bundles.write_stream_bundle(folder, shift=1.0)
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with connect_ws(f"{server.url}{PATH}") as other:
                if send_piece(other, "the film ")["model"]["digest"] == folder.name:
                    break
            time.sleep(0.2)
        second = send_piece(session, "film ")
        assert old is not None and first["model"]["digest"] == second["model"]["digest"] == old.digest
        with connect_ws(f"{server.url}{PATH}") as later:
            assert send_piece(later, "the film ")["model"]["digest"] == folder.name


def test_a_client_that_reads_nothing_is_ended_and_keeps_nobody(server: Server) -> None:
    before = counted(server, 'convoy_dropped_streams_total{why="slow"')
    with RawSocket(server) as slow:
        for _ in range(25):
            slow.send("good " * 3_900)  # 270 kB of answer each: more than the system keeps for a connection
        for _ in range(5):
            with connect_ws(f"{server.url}{PATH}") as other:
                assert send_piece(other, "good ")["words"]
        assert slow.ends_within_s(websockets.SEND_S + 20)
    time.sleep(1)
    assert counted(server, 'convoy_dropped_streams_total{why="slow"') == before + 1


@pytest.mark.proof  # two pings of 20 seconds
def test_a_client_that_answers_no_ping_is_ended(server: Server) -> None:
    with RawSocket(server) as dead:
        dead.send("good ")
        began = time.monotonic()
        dead.socket.settimeout(70)
        while dead.socket.recv(4096):
            pass
    assert time.monotonic() - began < 60


def test_two_hundred_streams_are_open_at_once_and_all_are_answered(server: Server) -> None:
    """And again: all the places are free afterwards."""
    taken_s: list[float] = []

    async def one(client: httpx.AsyncClient, ready: asyncio.Barrier) -> None:
        async with aconnect_ws(f"{server.url}{PATH}", client) as session:
            await ready.wait()  # until all are open
            words = 0
            for piece in ("the goo", "d film isn't b", "ad at all, ", "and so on ") * 5:
                words += await _ask(session, piece)
            await ready.wait()
            assert words == 5 * 11

    async def _ask(session: AsyncWebSocketSession, piece: str) -> int:
        began = time.monotonic()
        await session.send_text(json.dumps({"text": piece}))
        answer = json.loads(await session.receive_text(timeout=20))
        taken_s.append(time.monotonic() - began)
        return len(answer["words"])

    async def run() -> float:
        ready = asyncio.Barrier(STREAMS)
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=30) as client:
            await asyncio.gather(*(one(client, ready) for _ in range(STREAMS)))
        return counted(server, "convoy_open_streams")

    asyncio.run(run())
    print(f"{STREAMS} streams: median {statistics.median(taken_s):.4f} s, slowest {max(taken_s):.4f} s")
    assert len(taken_s) == STREAMS * 20 and max(taken_s) < 10
    time.sleep(1)
    assert counted(server, "convoy_open_streams") == 0


@pytest.mark.torch
def test_the_cost_of_a_word_and_of_many_streams_is_measured(server: Server) -> None:
    from bench.streams import Size, measure

    size = Size(rounds=1, pieces=5, streams=5, words_each=3, after_words=(1, 5_000))
    figures = measure(size, server.url, ["good", "film"] * 3_000)
    assert figures["cost"]["after_5000_over_after_1"]["ratio"] > 0 and figures["at_once"]["pieces"] == 15
    assert 0 < figures["at_once"]["p50_ms"] <= figures["at_once"]["p99_ms"] <= figures["at_once"]["slowest_ms"]
