"""The outer layer alone, message by message: how much it reads, and what it makes of bodies that lie."""

import asyncio
from collections.abc import Iterable

import pytest
from conftest import layer_with
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import middleware, request
from serving.deployed import Deployed
from serving.middleware import Middleware
from serving.models import DeployedModels
from serving.request import WHOLE_BODY, RequestContext

LIMIT = 4_000_000  # of the tiny image card
Headers = list[tuple[bytes, bytes]]
TYPE = (b"content-type", b"image/png")


async def echo(_work: object, _model: object, context: RequestContext) -> bytes:
    return b'{"length": %d}' % len(context.body)


class Conversation:
    """One request in hand-made messages, and what came of it."""

    def __init__(self, messages: Iterable[Message], headers: Headers, pause_s: float = 0) -> None:
        self.messages = iter(messages)
        self.headers = [TYPE, *headers]
        self.pause_s = pause_s
        self.received = 0
        self.received_before_answer = -1
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        await asyncio.sleep(self.pause_s)
        message = next(self.messages, None)
        if message is None:
            await asyncio.Event().wait()  # a sender that says nothing more
        assert message is not None
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if not self.sent:
            self.received_before_answer = self.received
        self.sent.append(message)

    def run(self, model: Deployed, **more: object) -> int:
        """The status; -1 where nothing was sent."""
        return self._ask(layer_with(echo, model), {"method": "POST", "path": "/v1/fashion/predict", **more})

    def run_bentoml(self, model: Deployed, app: ASGIApp) -> int:
        """The same of a route that BentoML answers, for which `app` stands."""
        return self._ask(Middleware(app, DeployedModels({"fashion": model})), {"method": "GET", "path": "/livez"})

    def _ask(self, layer: Middleware, about: Scope) -> int:
        scope = {"type": "http", "query_string": b"", "headers": self.headers, **about}
        asyncio.run(layer(scope, self.receive, self.send))
        return int(self.sent[0]["status"]) if self.sent else -1

    def header(self, name: bytes) -> bytes:
        return dict(self.sent[0]["headers"]).get(name, b"")


def chunks(count: int, size: int = 65_536, end: bool = True) -> Iterable[Message]:
    for index in range(count):
        yield {"type": "http.request", "body": bytes(size), "more_body": not (end and index == count - 1)}


def test_a_body_in_many_chunks_arrives_whole(image_model: Deployed) -> None:
    conversation = Conversation(chunks(20), [])
    assert conversation.run(image_model) == 200
    assert conversation.sent[1]["body"].startswith(b'{"length": %d,' % (20 * 65_536))


def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(image_model: Deployed) -> None:
    conversation = Conversation(chunks(62), [(b"content-length", str(LIMIT + 1).encode())])
    assert conversation.run(image_model) == 413
    assert conversation.received_before_answer == 0


@pytest.mark.parametrize("headers", [[], [(b"transfer-encoding", b"chunked")], [(b"content-length", b"10")]])
def test_a_body_that_grows_past_the_limit_is_refused_at_the_limit(image_model: Deployed, headers: Headers) -> None:
    conversation = Conversation(chunks(10_000, end=False), headers)
    assert conversation.run(image_model) == 413
    assert conversation.received_before_answer <= LIMIT + 65_536


def test_exactly_the_limit_is_allowed(image_model: Deployed) -> None:
    assert Conversation(chunks(1, LIMIT), []).run(image_model) == 200
    assert Conversation(chunks(1, LIMIT + 1), []).run(image_model) == 413


def test_the_same_limits_hold_for_a_body_that_is_here_already(image_model: Deployed) -> None:
    assert Conversation(chunks(1, LIMIT), []).run(image_model, **{WHOLE_BODY: True}) == 200
    assert Conversation(chunks(1, LIMIT + 1), []).run(image_model, **{WHOLE_BODY: True}) == 413
    declared = Conversation(chunks(1, 10), [(b"content-length", str(LIMIT + 1).encode())])
    assert declared.run(image_model, **{WHOLE_BODY: True}) == 413 and declared.received_before_answer == 0


def test_a_refused_sender_may_finish_within_bounds_and_the_connection_closes(
    image_model: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "LINGER_BYTES", 10_000_000)
    monkeypatch.setattr(middleware, "LINGER_S", 0.2)
    declared = [(b"content-length", str(10 * LIMIT).encode())]
    finishing = Conversation(chunks(100), declared)
    assert finishing.run(image_model) == 413
    assert (finishing.received, finishing.header(b"connection")) == (100 * 65_536, b"close")
    assert finishing.sent[-1] == {"type": "http.response.body", "body": b""}
    endless = Conversation(chunks(100_000, end=False), declared)
    assert endless.run(image_model) == 413 and endless.received <= 10_000_000 + 65_536
    silent = Conversation([], declared)
    assert silent.run(image_model) == 413


def test_a_body_that_does_not_come_is_408(image_model: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "BODY_GRACE_S", 0.05)
    monkeypatch.setattr(request, "MIN_BODY_RATE", LIMIT / 0.05)
    monkeypatch.setattr(middleware, "LINGER_S", 0.1)
    for messages in ([], chunks(3, 10, end=False)):
        conversation = Conversation(messages, [(b"content-length", b"100")])
        assert conversation.run(image_model) == 408
        assert conversation.header(b"connection") == b"close"
        assert b"within 0.1 s" in conversation.sent[1]["body"]


@pytest.mark.parametrize(("rate", "status"), [(LIMIT / 5, 200), (LIMIT / 0.05, 408)])
def test_a_steady_sender_has_the_time_that_the_body_limit_takes_at_the_lowest_rate(
    image_model: Deployed, monkeypatch: pytest.MonkeyPatch, rate: float, status: int
) -> None:
    monkeypatch.setattr(request, "BODY_GRACE_S", 0.05)
    monkeypatch.setattr(request, "MIN_BODY_RATE", rate)
    monkeypatch.setattr(middleware, "LINGER_S", 0.01)
    assert Conversation(chunks(10), [], pause_s=0.04).run(image_model) == status


def test_a_body_of_twenty_megabytes_has_fifty_seconds() -> None:
    assert request.body_timeout_s(20_000_000) == 50


def test_a_sender_that_leaves_gets_no_answer_and_reaches_no_model(image_model: Deployed) -> None:
    gone: list[Message] = [{"type": "http.disconnect"}]
    assert Conversation([*chunks(2, 10, end=False), *gone], []).run(image_model) == -1


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 418, 429, 500, 502, 503, 504])
def test_an_error_of_another_layer_leaves_in_our_form(image_model: Deployed, status: int) -> None:
    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-library", b"1")]})
        await send({"type": "http.response.body", "body": b"Trace", "more_body": True})
        await send({"type": "http.response.body", "body": b"back"})

    conversation = Conversation(chunks(1), [])
    answered = conversation.run_bentoml(image_model, other)
    assert answered // 100 == status // 100
    assert b"Trace" not in b"".join(message.get("body", b"") for message in conversation.sent)
    assert len(conversation.sent) == 2 and conversation.header(b"x-library") == b""
    assert (conversation.header(b"retry-after") != b"") == (status in (429, 503))


def test_an_exception_of_another_layer_is_a_500_that_tells_nothing(image_model: Deployed) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("marker")

    conversation = Conversation(chunks(1), [])
    assert conversation.run_bentoml(image_model, fail) == 500
    assert b"internal_error" in conversation.sent[1]["body"] and b"marker" not in conversation.sent[1]["body"]


def test_a_fault_of_the_outer_layer_is_a_500_in_our_form(
    image_model: Deployed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(middleware, "checked_deadline_s", lambda *_: {}["marker"])
    conversation = Conversation(chunks(1), [])
    assert conversation.run(image_model) == 500
    assert b"internal_error" in conversation.sent[1]["body"] and b"marker" not in conversation.sent[1]["body"]
    assert conversation.header(b"x-request-id").decode() in caplog.text


def test_a_websocket_is_closed(image_model: Deployed) -> None:
    sent: list[Message] = []

    async def connect() -> Message:
        return {"type": "websocket.connect"}

    async def keep(message: Message) -> None:
        sent.append(message)

    asyncio.run(layer_with(echo, image_model)({"type": "websocket", "path": "/"}, connect, keep))
    assert [message["type"] for message in sent] == ["websocket.close"]
