"""A real nginx with gateway.conf before a real service: what is slow, large or too much ends there, in our form."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import tiny_bundles
from conftest import ROOT, WRITERS, Server, deploy, error_of, serve, without_id
from httpx_ws import WebSocketUpgradeError, connect_ws
from test_ports import free_port

PNG = tiny_bundles.png(200)
IMAGES = "/v1/images/predict"
TYPE = {"content-type": "image/png"}
pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx here (Debian: nginx-light)")


def start_gateway(folder: Path, *instances: int) -> tuple[subprocess.Popen[bytes], str]:
    """nginx for services at these ports, listening; its process and its address."""
    port = free_port()
    environment = {"SERVING": " ".join(f"127.0.0.1:{each}" for each in instances), "SCRATCH": str(folder)}
    process = subprocess.Popen(
        ["sh", "serving/gateway.sh"], cwd=ROOT, env={**os.environ, **environment, "LISTEN": f"127.0.0.1:{port}"}
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    return process, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, url = start_gateway(tmp_path_factory.mktemp("gateway"), server.port)
    yield url
    process.terminate()
    process.wait(10)


def test_an_answer_through_the_gateway_is_that_of_the_service(gateway: str, server: Server) -> None:
    through, direct = (httpx.post(f"{url}{IMAGES}", content=PNG, headers=TYPE) for url in (gateway, server.url))
    assert without_id(through) == without_id(direct)
    for path in ("/", "/docs.json", "/livez", "/readyz", "/v1/models", "/static_content/swagger-ui.css"):
        assert httpx.get(gateway + path).status_code == 200, path


def test_the_metrics_stay_inside(gateway: str) -> None:
    response = httpx.get(f"{gateway}/metrics")
    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


def test_what_the_service_refuses_keeps_its_own_words(gateway: str) -> None:
    for options, code in (
        ({"content": b"x", "headers": TYPE}, "undecodable_image"),
        ({"content": PNG, "headers": {"content-type": "image/gif"}}, "unsupported_media_type"),
        ({"content": PNG, "headers": {**TYPE, "host": "evil.example"}}, "forbidden_host"),
    ):
        assert error_of(httpx.post(f"{gateway}{IMAGES}", **options))["code"] == code  # type: ignore[arg-type]


def test_a_body_over_every_limit_is_refused_without_the_service(gateway: str) -> None:
    response = httpx.post(f"{gateway}{IMAGES}", content=bytes(21 * 2**20), headers=TYPE, timeout=20)
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")


def test_bytes_that_are_not_http_end_at_the_gateway(gateway: str) -> None:
    port = int(gateway.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST /v1/texts/predict HTTP/1.1\r\nHost: a b\r\nContent-Length: -5\r\n\r\n")
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"malformed_request"' in answer


@pytest.mark.slow
def test_half_a_head_and_half_a_body_are_closed_after_ten_seconds_and_hold_nobody_up(gateway: str) -> None:
    port = int(gateway.rpartition(":")[2])
    head = b"POST /v1/images/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 500\r\n"
    slow = [socket.create_connection(("127.0.0.1", port), timeout=15) for _ in range(60)]
    for index, connection in enumerate(slow):
        connection.sendall(head if index % 2 else head + b"\r\nx")
    began = time.monotonic()
    while time.monotonic() - began < 3:
        assert httpx.post(f"{gateway}{IMAGES}", content=PNG, headers=TYPE, timeout=2).status_code == 200
    for connection in slow:
        with connection, suppress(ConnectionResetError):
            connection.recv(65_536)  # a 408, nothing, or a reset: it is closed either way
    assert 8 < time.monotonic() - began < 14


@pytest.mark.slow
def test_an_instance_that_is_ended_under_load_fails_no_request_while_another_is_there(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path / "deployed"
    for task in WRITERS:
        deploy(root, task)
    with serve(root, tmp_path_factory.mktemp("stays")) as stays:
        with serve(root, tmp_path_factory.mktemp("goes")) as goes:
            process, url = start_gateway(tmp_path, stays.port, goes.port)

            def ask(_: int) -> list[int]:
                with httpx.Client(timeout=10) as client:
                    return [client.post(f"{url}{IMAGES}", content=PNG, headers=TYPE).status_code for _ in range(500)]

            pool = ThreadPoolExecutor(4)
            asking = pool.map(ask, range(4))
            time.sleep(0.5)
        statuses = [status for part in asking for status in part]  # `goes` has had its SIGTERM by now
        pool.shutdown()
        process.terminate()
        process.wait(10)
    assert Counter(statuses) == {200: 2000}


def test_where_no_service_is_the_gateway_says_so_in_our_form(tmp_path: Path) -> None:
    process, url = start_gateway(tmp_path, free_port())
    try:
        response = httpx.post(f"{url}{IMAGES}", content=PNG, headers=TYPE)
        assert (response.status_code, error_of(response)["code"]) == (502, "model_unavailable")
    finally:
        process.terminate()
        process.wait(10)


def test_a_stream_goes_through_the_gateway_by_socket_and_by_requests(gateway: str) -> None:
    with connect_ws(f"{gateway}/v1/texts/stream") as session:
        for piece, words in (("the goo", ["the"]), ("d film ", ["good", "film"])):
            session.send_text(json.dumps({"text": piece}))
            assert [word["word"] for word in json.loads(session.receive_text(timeout=10))["words"]] == words
    answer = httpx.post(f"{gateway}/v1/texts/stream", json={"text": "good film "})
    assert answer.status_code == 200 and answer.json()["state"]


def test_no_other_path_of_the_gateway_becomes_a_socket(gateway: str) -> None:
    with pytest.raises(WebSocketUpgradeError), connect_ws(f"{gateway}/v1/texts/predict"):
        pass
