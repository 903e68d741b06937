"""A real `bentoml serve` over HTTP."""

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import hostile
import httpx
import pytest
import tiny_bundles
from conftest import Server, error_of, without_id

from serving.answers import answer_sets
from serving.deployed import Deployed
from serving.kinds.image import predict as predict_images
from serving.kinds.text import predict as predict_texts

pytestmark = pytest.mark.process
PNG = tiny_bundles.png(200)


def raw_request(server: Server, *parts: bytes, pause_s: float = 0) -> bytes:
    """What a socket gets back for these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
            time.sleep(pause_s)
        answer = b""
        while chunk := _receive(connection):
            answer += chunk
            if _is_whole(answer):
                break
        return answer


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""


def _is_whole(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(separator) and bool(lengths) and len(body) >= int(lengths[0].split(b":")[1])


def test_the_answers_are_those_of_the_prediction_functions(
    server: Server, image_model: Deployed, text_model: Deployed
) -> None:
    image = httpx.post(f"{server.url}/v1/fashion/predict", content=PNG, headers={"content-type": "image/png"})
    texts = httpx.post(f"{server.url}/v1/reviews/predict", json={"texts": ["good film", "bad"]})
    assert without_id(image) == predict_images(image_model, [PNG], None)
    assert without_id(texts) == predict_texts(text_model, ["good film", "bad"])
    image = httpx.post(f"{server.url}/v1/fashion/sets", files={"image": PNG})
    texts = httpx.post(f"{server.url}/v1/reviews/sets", json={"texts": ["film", "bad"]})
    assert without_id(image) == predict_images(image_model, [PNG], None, answer=answer_sets)
    assert without_id(texts) == predict_texts(text_model, ["film", "bad"], answer_sets)


def test_it_listens_on_the_local_machine_only(server: Server) -> None:
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", server.port), timeout=2).close()


def test_probes_page_document_and_static_files_answer(server: Server) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/", "/docs.json", "/static_content/swagger-ui.css"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.headers.get("x-content-type-options")) == (200, "nosniff"), path


def test_broken_metadata_of_images_fill_no_log(server: Server) -> None:
    tags = b"".join(struct.pack("<HHII", 2000 + index, 2, 100, 8) for index in range(300))
    image = hostile.with_chunk(b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<H", 300) + tags)
    answer = httpx.post(f"{server.url}/v1/fashion/predict", content=image, headers={"content-type": "image/png"})
    assert answer.status_code == 200
    assert "Skipping tag" not in server.log.read_text()


def test_the_metrics_count_every_answer_and_unknown_paths_add_no_line(server: Server) -> None:
    def lines() -> dict[str, float]:
        text = httpx.get(f"{server.url}/metrics").text
        split = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in split}

    def total(samples: dict[str, float], name: str, *labels: str) -> float:
        return sum(
            value for key, value in samples.items() if key.startswith(name) and all(label in key for label in labels)
        )

    before = lines()
    for _ in range(3):
        httpx.post(f"{server.url}/v1/fashion/predict", content=PNG, headers={"content-type": "image/png"})
        httpx.post(f"{server.url}/v1/fashion/predict", content=b"x", headers={"content-type": "image/png"})
        httpx.post(f"{server.url}/v1/reviews/predict", content=b"x", headers={"content-type": "text/plain"})
        httpx.get(f"{server.url}/nowhere/{time.monotonic_ns()}")
    after = lines()
    for name, labels, grown in (
        ("convoy_answer_seconds_count", ['task="fashion"'], 3),
        ("convoy_faults_total", ['code="undecodable_image"'], 3),
        ("convoy_faults_total", ['code="unsupported_media_type"'], 3),
        ("convoy_faults_total", ['code="not_found"'], 3),
    ):
        assert total(after, name, *labels) - total(before, name, *labels) == grown, (name, labels)
    assert [key for key in after if "nowhere" in key or ("bentoml_" in key and "/v1/" in key)] == []


def test_a_url_in_the_image_field_is_refused_and_never_fetched(server: Server) -> None:
    fetched: list[str] = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_response(200)
            self.end_headers()

    canary = HTTPServer(("127.0.0.1", 0), Canary)
    threading.Thread(target=canary.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{canary.server_port}/image.png".encode()
    try:
        with httpx.Client(base_url=server.url) as client, ThreadPoolExecutor(4) as pool:

            def attempt(index: int) -> int:
                if index % 2:
                    return client.post("/v1/fashion/predict", files={"image": (None, address)}).status_code
                return client.post(
                    "/v1/fashion/predict", content=address, headers={"content-type": "image/png"}
                ).status_code

            assert set(pool.map(attempt, range(60))) == {422}
    finally:
        canary.shutdown()
        canary.server_close()
    assert fetched == []


def test_a_large_upload_reads_its_413_instead_of_a_reset(server: Server) -> None:
    for content in (bytes(8_000_000), iter([bytes(1_000_000)] * 8)):
        response = httpx.post(
            f"{server.url}/v1/fashion/predict", content=content, headers={"content-type": "image/png"}, timeout=20
        )
        assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")


def test_an_endless_chunked_body_is_cut_off(server: Server) -> None:
    head = b"POST /v1/fashion/predict HTTP/1.1\r\nHost: [::1]\r\nContent-Type: image/png\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    started = time.monotonic()
    answer = raw_request(server, head, *[chunk] * 3000)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert time.monotonic() - started < 10


def test_trailers_after_a_chunked_body_are_a_400(server: Server) -> None:
    head = b"POST /v1/reviews/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n13\r\n" + b'{"texts": ["good"]}' + b"\r\n0\r\n"
    assert raw_request(server, head + chunks + b"\r\n").startswith(b"HTTP/1.1 200 ")
    for parts in ([head + chunks + b"x-a: b\r\n\r\n"], [head + chunks, b"x-a: b\r\nx-b: c\r\n"]):
        answer = raw_request(server, *parts, pause_s=0.05)
        assert answer.startswith(b"HTTP/1.1 400 ") and b"malformed_request" in answer


def test_a_shorter_body_than_declared_does_not_stop_the_others(server: Server) -> None:
    head = b"POST /v1/fashion/predict HTTP/1.1\r\nHost: [::1]\r\nContent-Type: image/png\r\nContent-Length: 500\r\n\r\n"
    waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    try:
        for connection in waiting:
            connection.sendall(head + b"x")
        for _ in range(10):
            assert httpx.get(f"{server.url}/readyz", timeout=2).status_code == 200
            sent = httpx.post(
                f"{server.url}/v1/fashion/predict", content=PNG, headers={"content-type": "image/png"}, timeout=2
            )
            assert sent.status_code == 200
    finally:
        for connection in waiting:
            connection.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/reviews/predict HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/reviews/predict HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/reviews/predict HTTP/1.1\r\nHost: [::1]\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/reviews/predict HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_bytes_that_are_not_http_are_a_400_or_a_closed_connection(server: Server, request_bytes: bytes) -> None:
    answer = raw_request(server, request_bytes)
    assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0] or b" 415 " in answer.split(b"\r\n")[0]
    assert httpx.get(f"{server.url}/livez").status_code == 200


def test_expect_100_continue_is_refused_before_the_body_is_asked_for(server: Server) -> None:
    head = b"POST /v1/fashion/predict HTTP/1.1\r\nHost: [::1]\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
    answer = raw_request(server, head + b"Content-Length: 99999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_many_at_once_each_get_their_own_answer(server: Server, image_model: Deployed) -> None:
    images = [tiny_bundles.png(value) for value in range(0, 256, 8)]
    expected = [predict_images(image_model, [image], None) for image in images]
    with httpx.Client(base_url=server.url) as client, ThreadPoolExecutor(8) as pool:

        def ask(image: bytes) -> bytes:
            return without_id(client.post("/v1/fashion/predict", content=image, headers={"content-type": "image/png"}))

        assert list(pool.map(ask, images * 4)) == expected * 4


def test_after_all_this_the_log_holds_no_traceback_and_the_service_is_ready(server: Server) -> None:
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert json.loads(httpx.get(f"{server.url}/v1/models").content)["tasks"]["fashion"]["state"] == "ready"
    assert "Traceback" not in server.log.read_text()
