"""/v1/<task>/stream, by requests with a state and by WebSockets: pieces in, probabilities after each word out."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import tiny_bundles
from conftest import deploy, error_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.types import Message, Scope
from starlette.websockets import WebSocketDisconnect

from convoy.bundles.predictor import Predictor
from convoy.bundles.streaming import begin, read
from serving import websockets
from serving.admission import Security
from serving.batching import Threads, usable_cores
from serving.deployed import Deployed, load_task
from serving.models import DeployedModels
from serving.streams import answer_message
from serving.websockets import StreamSocket

PATH = "/v1/reviews-stream/stream"
TEXT = "The good film isn't bad,<br /><br />it is  the bad film\u2026 and the good one"


def ask(client: TestClient, text: str, final: bool = False, state: str | None = None) -> Any:
    answer = client.post(PATH, json={"text": text, "final": final, "state": state})
    assert answer.status_code == 200, answer.text
    return answer.json()


def send_piece(socket: WebSocketTestSession, text: str, final: bool = False) -> Any:
    socket.send_text(json.dumps({"text": text, "final": final}))
    return json.loads(socket.receive_text())


def expected(predictor: Predictor, text: str) -> list[dict[str, Any]]:
    reading = read(predictor, begin(predictor), text, final=True)
    labels = predictor.card.labels
    rows = reading.probabilities.tolist()
    return [
        {"word": word, "probabilities": pytest.approx(dict(zip(labels, row, strict=True)), abs=1e-5)}
        for word, row in zip(reading.words, rows, strict=True)
    ]


def pieces_of(text: str, places: list[int]) -> Iterator[tuple[str, bool]]:
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    for start, end in zip([0, *ends], ends, strict=False):
        yield text[start:end], end == len(text)


@pytest.mark.process
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_any_division_gives_the_answer_of_the_whole(
    client: TestClient, stream_model: Deployed, places: list[int]
) -> None:
    wanted = expected(stream_model.predictor, TEXT)
    words, state = [], None
    for piece, final in pieces_of(TEXT, places):
        answer = ask(client, piece, final, state)
        state = answer["state"]
        words += answer["words"]
    assert words == wanted and answer["probabilities"] == wanted[-1]["probabilities"]
    with client.websocket_connect(PATH) as socket:
        answers = [send_piece(socket, piece, final) for piece, final in pieces_of(TEXT, places)]
    assert [word for answer in answers for word in answer["words"]] == wanted
    assert answers[-1]["probabilities"] == wanted[-1]["probabilities"]


def test_an_answer_names_its_model_and_what_is_known_so_far(client: TestClient, stream_model: Deployed) -> None:
    first = ask(client, "go")
    assert (first["probabilities"], first["words"]) == (None, [])
    assert set(first["model"].items()) < set(stream_model.release.model_dump().items())
    second = ask(client, "od film", state=first["state"])
    assert [word["word"] for word in second["words"]] == ["good"]
    assert second["probabilities"] == second["words"][-1]["probabilities"]
    third = ask(client, " ", state=second["state"])
    assert [word["word"] for word in third["words"]] == ["film"]
    fourth = ask(client, "", state=third["state"])
    assert fourth["words"] == [] and fourth["probabilities"] == third["probabilities"]


def test_a_state_can_be_used_again_and_again(client: TestClient) -> None:
    state = ask(client, "the good ")["state"]
    for _ in range(2):
        assert [word["word"] for word in ask(client, "film ", state=state)["words"]] == ["film"]
    other = ask(client, "bad ", state=state)
    assert [word["word"] for word in other["words"]] == ["bad"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"text": 1}, 422, "invalid_request"),
        ({"text": "a", "final": "yes"}, 422, "invalid_request"),
        ({"text": "a", "state": 1}, 422, "invalid_request"),
        ({"text": "a", "states": ""}, 422, "invalid_request"),
        ({"text": "a", "state": "abc"}, 400, "state_invalid"),
        ({"text": "a", "state": ""}, 400, "state_invalid"),
        ({"text": "a" * 101}, 422, "word_too_long"),
        ({"text": "a " * 10_001}, 413, "text_too_long"),
        ({"text": "\ufdfa" * 1_200, "final": True}, 413, "text_too_long"),
        ({"text": "\ud83d"}, 422, "invalid_text"),
    ],
)
def test_what_cannot_be_read_is_refused_and_never_repeated(
    client: TestClient, request_: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post(PATH, content=json.dumps(request_), headers={"content-type": "application/json"})
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    with client.websocket_connect(PATH) as socket:
        if "state" in request_:
            code = "invalid_request"  # a connection keeps its own
        socket.send_text(json.dumps(request_))
        error = json.loads(socket.receive_text())["error"]
        assert error["code"] == code and set(error) == {"code", "message", "request_id"}
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_text()
        assert ended.value.code == websockets.VIOLATION


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/", {}, 404, "not_found"),
        ("/v1/reviews/predict", {}, 404, "not_found"),
        (f"{PATH}?a=b", {}, 422, "invalid_parameter"),
        (PATH, {"host": "evil.example"}, 403, "forbidden_host"),
        (PATH, {"origin": "http://evil.example"}, 403, "forbidden_origin"),
        (PATH, {f"x-{n}": "" for n in range(70)}, 431, "headers_too_large"),
    ],
)
def test_a_handshake_is_refused_as_a_request_is(
    client: TestClient, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path, headers=headers):
        pass
    assert (denied.value.status_code, error_of(denied.value)["code"]) == (status, code)


class Connection:
    """A WebSocket in hand-made messages: what the client sends, and how it takes what it is sent."""

    def __init__(self, *texts: str, reads: bool = True, **scope: Any) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.messages.put_nowait({"type": "websocket.connect"})
        for text in texts:
            self.send_piece(text)
        self.reads = reads
        self.sent: list[Message] = []
        self.aborted = asyncio.Event()
        self.scope: Scope = {
            "type": "websocket",
            "path": PATH,
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "extensions": {websockets.RESPONSE: {}},
            "convoy.abort": self.aborted.set,
            **scope,
        }

    def send_piece(self, text: str) -> None:
        self.messages.put_nowait({"type": "websocket.receive", "text": json.dumps({"text": text})})

    def leave(self) -> None:
        self.messages.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def receive(self) -> Message:
        return await self.messages.get()

    async def until_sent(self, count: int) -> None:
        while len(self.sent) < count:
            await asyncio.sleep(0.01)

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send" and not self.reads:
            await asyncio.Event().wait()
        self.sent.append(message)

    @property
    def kinds(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.sent]


def app_of(model: Deployed, most_streams: int = 2, **security: Any) -> tuple[StreamSocket, DeployedModels]:
    models = DeployedModels({"reviews-stream": model})
    return StreamSocket(Threads(1), models, Security(**security), most_streams=most_streams), models


def test_a_client_that_says_nothing_is_dropped(stream_model: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "IDLE_S", 0.05)
    connection = Connection("good ")
    app, _ = app_of(stream_model)
    asyncio.run(app(connection.scope, connection.receive, connection.send))
    assert connection.kinds == ["accept", "send", "close"]
    assert (connection.sent[-1]["code"], connection.sent[-1]["reason"]) == (websockets.VIOLATION, "idle")


@pytest.mark.parametrize(("blank", "at_once"), [("", 1), (" ", 1), ("\n", 1), ("", 1_000)])
def test_pieces_without_words_keep_no_stream_open(
    stream_model: Deployed, monkeypatch: pytest.MonkeyPatch, blank: str, at_once: int
) -> None:
    """Neither one now and then, nor so many that the next one is always there."""
    monkeypatch.setattr(websockets, "IDLE_S", 0.2)
    connection, (app, _) = Connection("good "), app_of(stream_model)

    async def run() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            served = tasks.create_task(app(connection.scope, connection.receive, connection.send))
            while not served.done():
                for _ in range(at_once):
                    connection.send_piece(blank)
                await asyncio.sleep(0.05)

    asyncio.run(run())
    assert connection.kinds[-1] == "close" and connection.sent[-1]["reason"] == "idle"


def test_a_stream_with_words_ends_at_its_age(stream_model: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "IDLE_S", 0.3)
    monkeypatch.setattr(websockets, "LONGEST_S", 0.6)
    connection, (app, _) = Connection(), app_of(stream_model)

    async def run() -> float:
        began_s = time.monotonic()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            served = tasks.create_task(app(connection.scope, connection.receive, connection.send))
            while not served.done():
                connection.send_piece("go")  # parts of a word are words too
                await asyncio.sleep(0.05)
        return time.monotonic() - began_s

    assert asyncio.run(run()) >= 0.6
    assert connection.kinds[-1] == "close"
    assert (connection.sent[-1]["code"], connection.sent[-1]["reason"]) == (websockets.GOING_AWAY, "expired")


def test_a_withdrawn_task_ends_its_streams(stream_model: Deployed) -> None:
    connection, (app, models) = Connection("good "), app_of(stream_model)

    async def run() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            tasks.create_task(app(connection.scope, connection.receive, connection.send))
            await connection.until_sent(2)
            models.remove("reviews-stream")
            connection.send_piece("bad ")

    asyncio.run(run())
    assert connection.kinds == ["accept", "send", "close"]
    assert (connection.sent[-1]["code"], connection.sent[-1]["reason"]) == (websockets.GOING_AWAY, "withdrawn")


def test_a_message_is_limited_as_a_body(stream_model: Deployed) -> None:
    connection, (app, _) = Connection(), app_of(stream_model)
    longest = stream_model.predictor.card.limits.max_body_bytes
    piece = json.dumps({"text": "good "})
    for length in (longest, longest + 1):
        connection.messages.put_nowait({"type": "websocket.receive", "text": piece.ljust(length)})
    asyncio.run(app(connection.scope, connection.receive, connection.send))
    assert connection.kinds == ["accept", "send", "send", "close"]
    assert connection.sent[-1]["reason"] == "body_too_large"


@pytest.mark.process
def test_pieces_that_would_wait_too_long_are_refused(stream_model: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "TIMEOUT_S", 0.4)
    monkeypatch.setattr(websockets, "answer_message", slowly(0.05))
    models = DeployedModels({"reviews-stream": stream_model})
    app = StreamSocket(Threads(1), models, Security(), most_streams=40)
    connections = [Connection("good ", "bad ") for _ in range(40)]

    async def serve(connection: Connection) -> None:
        if connection is not connections[0]:
            connection.leave()
        await app(connection.scope, connection.receive, connection.send)

    async def run() -> None:
        first = connections[0]
        for _ in range(20):  # one alone, by which the service learns how long a piece takes
            first.send_piece("good ")
        first.leave()
        await serve(first)
        async with asyncio.timeout(10):
            await asyncio.gather(*(serve(client) for client in connections[1:]))

    asyncio.run(run())
    refused = [client for client in connections[1:] if client.kinds[-1] == "close"]
    codes = {json.loads(client.sent[-2]["text"])["error"]["code"] for client in refused}
    assert codes == {"overloaded"} and {client.sent[-1]["code"] for client in refused} == {websockets.TRY_AGAIN_LATER}
    assert 1 <= 39 - len(refused) < 10 and connections[0].kinds[-1] == "send"
    assert app.capacity.inside == 0


def slowly(seconds: float) -> Callable[..., Any]:
    def answer(*about: Any) -> Any:
        time.sleep(seconds)
        return answer_message(*about)

    return answer


def test_pieces_take_no_thread_of_predictions(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    def wait(*about: Any) -> Any:
        free.wait(10)
        return answer_message(*about)

    monkeypatch.setattr(websockets, "answer_message", wait)
    large = tiny_bundles.png(200, (300, 300))  # too large for the event loop: it needs a thread
    headers = {"content-type": "image/png", "x-request-timeout-ms": "3000"}
    with ExitStack() as opened:
        for _ in range(usable_cores() + 1):
            opened.enter_context(client.websocket_connect(PATH)).send_text('{"text": "good "}')
        try:
            answer = client.post("/v1/fashion/predict", content=large, headers=headers)
        finally:
            free.set()  # before the streams close
    assert answer.status_code == 200, answer.text


def test_a_client_that_reads_nothing_is_dropped_at_once(
    stream_model: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "SEND_S", 0.05)
    connection = Connection("good ", reads=False)
    app, _ = app_of(stream_model)
    asyncio.run(app(connection.scope, connection.receive, connection.send))
    assert connection.kinds == ["accept"] and connection.aborted.is_set()


def test_there_are_so_many_places_and_one_that_is_left_is_free_again(stream_model: Deployed) -> None:
    app, _ = app_of(stream_model)

    async def run() -> tuple[Connection, Connection]:
        open_ones = [Connection("good "), Connection("good ")]
        tasks = [asyncio.create_task(app(client.scope, client.receive, client.send)) for client in open_ones]
        for client in open_ones:
            await client.until_sent(2)
        refused = Connection()
        await app(refused.scope, refused.receive, refused.send)
        open_ones[0].leave()
        await tasks[0]
        later = Connection("good ")
        last = asyncio.create_task(app(later.scope, later.receive, later.send))
        await later.until_sent(2)
        open_ones[1].leave()
        later.leave()
        await asyncio.gather(tasks[1], last)
        return refused, later

    refused, later = asyncio.run(run())
    assert refused.sent[0]["status"] == 429 and dict(refused.sent[0]["headers"])[b"retry-after"]
    assert later.kinds == ["accept", "send"]


def test_an_open_stream_ends_on_the_model_it_began_with(
    stream_model: Deployed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("other")
    deploy(root, "reviews-stream", lambda folder: tiny_bundles.write_stream_bundle(folder, shift=1.0))
    other = load_task(root, "reviews-stream")
    assert isinstance(other, Deployed)
    app, models = app_of(stream_model)

    async def run() -> list[str]:
        first, second = Connection("good "), Connection("good ")
        began = asyncio.create_task(app(first.scope, first.receive, first.send))
        await first.until_sent(2)
        models.put("reviews-stream", other)
        first.send_piece("bad ")
        await first.until_sent(3)
        begins = asyncio.create_task(app(second.scope, second.receive, second.send))
        await second.until_sent(2)
        for client in (first, second):
            client.leave()
        await asyncio.gather(began, begins)
        return [json.loads(message["text"])["model"]["digest"] for message in (*first.sent[1:], *second.sent[1:])]

    old, new = stream_model.release.digest, other.release.digest
    assert asyncio.run(run()) == [old, old, new] and old != new


def test_a_key_is_wanted_of_a_connection_too(stream_model: Deployed) -> None:
    app, _ = app_of(stream_model, key="0123456789abcdef")
    without, with_key = Connection(), Connection("good ")
    with_key.scope["headers"].append((b"authorization", b"Bearer 0123456789abcdef"))
    asyncio.run(app(without.scope, without.receive, without.send))
    assert without.sent[0]["status"] == 401

    with_key.leave()
    asyncio.run(app(with_key.scope, with_key.receive, with_key.send))
    assert with_key.kinds == ["accept", "send"]


def test_what_fails_inside_is_told_without_a_word_of_the_cause(
    stream_model: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("marker")

    monkeypatch.setattr(websockets, "answer_message", fail)
    connection = Connection("good ")
    app, _ = app_of(stream_model)
    asyncio.run(app(connection.scope, connection.receive, connection.send))
    assert connection.kinds == ["accept", "send", "close"] and connection.sent[-1]["code"] == websockets.FAILURE
    assert "internal_error" in connection.sent[1]["text"] and "marker" not in connection.sent[1]["text"]


def test_the_document_describes_the_route(client: TestClient) -> None:
    document = client.get("/docs.json").json()
    operation = document["paths"][PATH]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("StreamRequest")
    assert "WebSocket" in document["info"]["description"]


def test_other_media_types_are_refused(client: TestClient) -> None:
    answer: httpx.Response = client.post(PATH, content=b"good", headers={"content-type": "text/plain"})
    assert error_of(answer)["code"] == "unsupported_media_type"
