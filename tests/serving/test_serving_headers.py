"""Hostile values in the headers that are read, over a real connection: each answer is ours, and none is a 5xx."""

import json
import socket
from itertools import takewhile

import pytest
from conftest import Server

pytestmark = pytest.mark.process
NAMES = [
    "accept-encoding",
    "authorization",
    "baggage",
    "content-encoding",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-modified-since",
    "if-range",
    "origin",
    "range",
    "referer",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "x-request-timeout-ms",
]
VALUES = [
    b"",
    b"http://[",
    b"http://a:99999999999/",
    b"http://\xbd\xe9/",
    b"[::1",
    b"%00%ff",
    b"-1",
    b"9" * 5000,
    b"multipart/form-data; boundary*=utf-99'x'%ff; boundary*0=a",
]
HANDSHAKE = {
    "upgrade": b"websocket",
    "connection": b"upgrade",
    "sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": b"13",
}
JSON = {"content-type": b"application/json", "connection": b"close", "content-length": b"19"}
REQUESTS = {
    "texts": (b"POST /v1/reviews/predict", JSON, b'{"texts": ["good"]}'),
    "page": (b"GET /", {"connection": b"close"}, b""),
    "handshake": (b"GET /v1/reviews-stream/stream", HANDSHAKE, b""),
}


def ask(server: Server, line: bytes, headers: dict[str, bytes], body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer to a request as it stands."""
    head = b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(line + b" HTTP/1.1\r\n" + head + b"\r\n" + body)
        with connection.makefile("rb") as answer:
            status = int((answer.readline().split() or [b"", b"0"])[1])
            answered = dict(header.lower().rstrip().split(b": ", 1) for header in takewhile(bytes.strip, answer))
            return status, answered, answer.read(int(answered.get(b"content-length", 0)))


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value[:20]))
def test_no_header_value_is_an_error_of_ours(server: Server, kind: str, value: bytes) -> None:
    line, own, body = REQUESTS[kind]
    for name in NAMES:
        status, headers, content = ask(server, line, {"host": b"localhost", **own, name: value}, body)
        assert 0 < status < 500, (name, status, content)
        assert status == 101 or headers.get(b"x-content-type-options") == b"nosniff", (name, status, headers)
        assert status < 400 or json.loads(content)["error"]["code"], (name, status, content)


@pytest.mark.parametrize("origin", [b"http://[", b"http://]", b"http://[::1", b"http://\xbd\xe9/"])
def test_an_origin_that_is_no_url_is_a_403(server: Server, origin: bytes) -> None:
    for kind in ("texts", "handshake"):
        line, own, body = REQUESTS[kind]
        status, headers, content = ask(server, line, {"host": b"localhost", **own, "origin": origin}, body)
        error = json.loads(content)["error"]
        assert (status, error["code"]) == (403, "forbidden_origin")
        assert headers[b"x-request-id"] == error["request_id"].encode()
