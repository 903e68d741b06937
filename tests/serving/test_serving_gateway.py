"""A real nginx with gateway.conf before a real service: what is slow, large or too much ends there, in our form."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import tiny_bundles
import yaml
from conftest import ROOT, WRITERS, Server, deploy, error_of, serve, without_id
from httpx_ws import WebSocketUpgradeError, connect_ws
from test_ports import free_port

from serving.admission import MOST_BYTES

PNG = tiny_bundles.png(200)
IMAGES = "/v1/fashion/predict"
STREAM = "/v1/reviews-stream/stream"
TYPE = {"content-type": "image/png"}
JSON_TYPE = {"content-type": "application/json"}
pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx here (Debian: nginx-light)")


def start_gateway(folder: Path, *instances: int, **more: str) -> tuple[subprocess.Popen[bytes], str]:
    """nginx for services at these ports, listening; its process and its address."""
    port = free_port()
    environment = {"SERVING": " ".join(f"127.0.0.1:{each}" for each in instances), "SCRATCH": str(folder), **more}
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


@dataclass(frozen=True)
class Gateway:
    """A running nginx."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def running(folder: Path, server: Server, **environment: str) -> Iterator[Gateway]:
    process, url = start_gateway(folder, server.port, **environment)
    try:
        yield Gateway(process, url)
    finally:
        process.terminate()
        process.wait(10)


def held_bytes(process: subprocess.Popen[bytes]) -> int:
    """Bytes in nginx's temporary files, which it unlinks as soon as it has made them."""
    held = 0
    for worker in psutil.Process(process.pid).children():
        for descriptor in Path(f"/proc/{worker.pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                target = os.readlink(descriptor)
                held += descriptor.stat().st_size if "/gateway/" in target and "(deleted)" in target else 0
    return held


def send_part(port: int, sent: int, announced: int, header: str = "") -> socket.socket:
    """Send a head and `sent` bytes of a body of `announced`; the connection stays open."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    length = f"Content-Type: image/png\r\nContent-Length: {announced}\r\n{header}"
    with suppress(OSError):  # refused, and closed, before all is sent
        connection.sendall(f"POST {IMAGES} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode() + bytes(sent))
    return connection


def answer_of(connection: socket.socket) -> str:
    """What has come back so far."""
    connection.setblocking(False)
    try:
        return connection.recv(65_536, socket.MSG_PEEK).decode()
    except BlockingIOError:
        return ""


def bytes_of(size: str) -> int:
    return int(size[:-1]) * {"k": 2**10, "m": 2**20}[size[-1]]


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


def test_a_body_over_the_limit_of_its_task_is_refused_by_the_service(gateway: str) -> None:
    response = httpx.post(f"{gateway}/v1/reviews/predict", content=bytes(3_000_000), headers=JSON_TYPE)
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")
    assert error_of(response)["message"] == "the body is larger than 1000000 bytes"


def test_a_body_over_every_limit_is_refused_without_the_service(gateway: str) -> None:
    response = httpx.post(f"{gateway}{IMAGES}", content=bytes(21 * 2**20), headers=TYPE, timeout=20)
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")


def test_bytes_that_are_not_http_end_at_the_gateway(gateway: str) -> None:
    port = int(gateway.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST /v1/reviews/predict HTTP/1.1\r\nHost: a b\r\nContent-Length: -5\r\n\r\n")
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"malformed_request"' in answer


@pytest.mark.process
def test_half_a_head_and_half_a_body_are_closed_after_ten_seconds_and_hold_nobody_up(gateway: str) -> None:
    port = int(gateway.rpartition(":")[2])
    head = b"POST /v1/fashion/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 500\r\n"
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


@pytest.mark.process
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
    with connect_ws(f"{gateway}/v1/reviews-stream/stream") as session:
        for piece, words in (("the goo", ["the"]), ("d film ", ["good", "film"])):
            session.send_text(json.dumps({"text": piece}))
            assert [word["word"] for word in json.loads(session.receive_text(timeout=10))["words"]] == words
    answer = httpx.post(f"{gateway}/v1/reviews-stream/stream", json={"text": "good film "})
    assert answer.status_code == 200 and answer.json()["state"]


def test_no_other_path_of_the_gateway_becomes_a_socket(gateway: str) -> None:
    with pytest.raises(WebSocketUpgradeError), connect_ws(f"{gateway}/v1/reviews/predict"):
        pass


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that nginx's workers can enter: as root it starts them as another user."""
    folder = Path(tempfile.mkdtemp(prefix="convoy-gateway-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def own_gateway(server: Server, readable: Path) -> Iterator[Gateway]:
    """One that no other test has sent anything."""
    with running(readable, server) as gateway:
        yield gateway


@pytest.mark.process
def test_slow_large_bodies_pin_no_file_and_hold_nobody_up(own_gateway: Gateway) -> None:
    slow = [send_part(own_gateway.port, 1_000_000, 2_000_000) for _ in range(24)]
    try:
        time.sleep(0.5)
        assert held_bytes(own_gateway.process) == 0
        for _ in range(20):
            assert httpx.post(f"{own_gateway.url}{IMAGES}", content=PNG, headers=TYPE, timeout=2).status_code == 200
        assert sum(answer_of(connection) == "" for connection in slow) == 8
        assert {answer_of(connection)[:12] for connection in slow} == {"", "HTTP/1.1 429"}
    finally:
        for connection in slow:
            connection.close()


def test_a_large_body_is_answered_as_without_a_gateway(own_gateway: Gateway, server: Server) -> None:
    large = tiny_bundles.png(200) + bytes(300_000)  # what follows the last chunk of a PNG is not read
    chunks = [large[start : start + 50_000] for start in range(0, len(large), 50_000)]
    direct = httpx.post(f"{server.url}{IMAGES}", content=large, headers=TYPE)
    for content in (large, iter(chunks)):  # of a length that is told, and of one that is not
        through = httpx.post(f"{own_gateway.url}{IMAGES}", content=content, headers=TYPE)
        assert without_id(through) == without_id(direct) and through.status_code == 200


def test_a_chunked_body_over_a_limit_is_cut_off(own_gateway: Gateway) -> None:
    for path, content_type in (("/v1/reviews/predict", "application/json"), (IMAGES, "image/png")):
        body = (bytes(1_000_000) for _ in range(30))
        response = httpx.post(
            f"{own_gateway.url}{path}", content=body, headers={"content-type": content_type}, timeout=20
        )
        assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")


@pytest.mark.process
def test_a_body_that_trickles_is_ended_by_the_service(own_gateway: Gateway) -> None:
    head = (
        f"POST {STREAM} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n"
    )
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", own_gateway.port), timeout=1) as connection:
        connection.sendall(head.encode())
        answer = b""
        while not answer and time.monotonic() - began < 30:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"request_timeout"' in answer
    assert 9 < time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("path", "size"),
    [("/v1/reviews/predict", 21 * 2**20), (STREAM, 3_000_000), ("/v1/models", 70_000), ("/livez", 70_000)],
)
def test_a_path_refuses_more_than_it_takes(own_gateway: Gateway, path: str, size: int) -> None:
    response = httpx.post(f"{own_gateway.url}{path}", content=bytes(size), headers=JSON_TYPE, timeout=20)
    assert (response.status_code, error_of(response)["message"]) == (413, "refused by the gateway")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_gateway_and_service_agree_on_limits() -> None:
    conf = (ROOT / "serving/gateway.conf").read_text()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    sizes = dict(re.findall(r"location ~ \^/v1/\S+/(\S+)\$ \{\s+client_max_body_size (\w+);", conf))
    limits = {name: task["limits"]["max_body_bytes"] for name, task in params["tasks"].items()}
    of_streams = limits.pop("reviews-stream")
    assert 1 < bytes_of(sizes["(predict|sets|explain)"]) / max(limits.values()) < 1.1
    assert 1 < bytes_of(sizes["stream"]) / of_streams < 1.1 and len(sizes) == 2
    (most,) = re.findall(r"limit_conn large_bodies (\d+);", conf)
    assert (
        int(most) * bytes_of(sizes["(predict|sets|explain)"]) < MOST_BYTES
    )  # one sender does not take all of a worker's
    # In memory, or passed on: none of them is written to a file here.
    assert bytes_of(re.findall(r"client_body_buffer_size (\w+);", conf)[0]) > 60_000


@pytest.mark.process
def test_a_sender_behind_a_known_proxy_is_counted_alone(server: Server, readable: Path) -> None:
    for known, status in (("", 429), ("127.0.0.0/8 ::1", 200)):
        with running(readable, server, CONVOY_REAL_IP_FROM=known) as gateway:
            others = [send_part(gateway.port, 70_000, 80_000, "X-Forwarded-For: 192.0.2.1\r\n") for _ in range(8)]
            time.sleep(0.5)
            large, headers = PNG + bytes(80_000), {**TYPE, "x-forwarded-for": "192.0.2.2"}
            response = httpx.post(f"{gateway.url}{IMAGES}", content=large, headers=headers)
            for connection in others:
                connection.close()
        assert response.status_code == status


@pytest.mark.parametrize(
    "proxies", ["10.0.0.0/8; include /etc/passwd", "10.0.0.7;", "proxy.example", "0.0.0.0/0", "::/0", "*", "dead", "$x"]
)
def test_what_is_no_proxys_address_is_refused(tmp_path: Path, proxies: str) -> None:
    done = subprocess.run(
        ["sh", "serving/gateway.sh"],
        cwd=ROOT,
        env={**os.environ, "SCRATCH": str(tmp_path), "CONVOY_REAL_IP_FROM": proxies},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.returncode == 1 and done.stderr.startswith("CONVOY_REAL_IP_FROM: '")
