"""What is let in at once is bounded, and what waits too long is given up before it costs anything."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
from conftest import layer_with
from starlette.types import Message

from serving import middleware
from serving import request as request_module
from serving.admission import MOST_REQUESTS, Budget, Capacity
from serving.batching import Threads, with_deadline
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.middleware import Middleware

FOREVER = float("inf")


class Slow:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = self.most = 0

    async def __call__(self, *_: object) -> bytes:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.go.wait()
        self.inside -= 1
        return b"{}"


async def request(
    layer: Middleware, body: bytes = b"x", *headers: tuple[bytes, bytes], path: str = "/v1/fashion/predict"
) -> tuple[int, dict[bytes, bytes]]:
    """The status and the headers of the answer."""
    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"image/png"), *headers],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    await layer(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


def test_more_requests_than_can_be_answered_in_time_get_429_at_once_and_the_others_are_answered(
    image_model: Deployed,
) -> None:
    async def flood() -> tuple[list[int], int, int]:
        app = Slow()
        layer = layer_with(app, image_model)
        most = MOST_REQUESTS
        tasks = [asyncio.create_task(request(layer)) for _ in range(most * 10)]
        refused = [await task for task in asyncio.as_completed(tasks[most:])]
        assert all(headers[b"retry-after"] == b"1" for _, headers in refused)
        assert {status for status, _ in refused} == {429}
        app.go.set()
        first = await asyncio.gather(*tasks[:most])
        again, _ = await request(layer)
        return [status for status, _ in first], app.most, again

    statuses, most, again = asyncio.run(flood())
    assert statuses == [200] * most and again == 200


def test_large_bodies_are_bounded_together_and_small_ones_still_come_in(image_model: Deployed) -> None:
    async def fill() -> list[int]:
        app = Slow()
        layer = layer_with(app, image_model)
        layer.budget.most_bytes = 3_000_000
        large = [asyncio.create_task(request(layer, bytes(1_000_000))) for _ in range(5)]
        await asyncio.sleep(0.05)
        small = asyncio.create_task(request(layer, bytes(60_000)))
        await asyncio.sleep(0.05)
        assert layer.budget.bytes == 3_000_000 and app.inside == 4
        app.go.set()
        statuses = [(await task)[0] for task in (*large, small)]
        assert layer.budget.bytes == layer.capacities["fashion"].inside == 0
        return [*statuses, (await request(layer, bytes(3_000_000)))[0]]

    assert asyncio.run(fill()) == [200, 200, 200, 429, 429, 200, 200]


def test_what_was_refused_is_not_counted() -> None:
    capacity, budget = Capacity("fashion", most_requests=1), Budget(most_bytes=10)
    capacity.enter(FOREVER)
    for refused in (lambda: capacity.enter(FOREVER), lambda: budget.hold(11)):
        with pytest.raises(RequestError, match="ask again"):
            refused()
    assert (capacity.inside, budget.bytes) == (1, 0)


def test_who_would_wait_for_more_than_half_of_his_time_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("serving.admission.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    capacity = Capacity("fashion")
    for _ in range(100):
        capacity.enter(FOREVER)
        now_s[0] += 0.02
        capacity.leave()
        now_s[0] += 1  # nobody inside: this is no interval
    assert capacity.interval_s == pytest.approx(0.02, rel=0.01)
    for _ in range(26):
        capacity.enter(now_s[0] + 1)
    with pytest.raises(RequestError, match="ask again"):
        capacity.enter(now_s[0] + 1)
    capacity.enter(now_s[0] + 10)  # who has more time may wait longer
    with pytest.raises(RequestError) as late:
        capacity.enter(now_s[0])
    assert late.value.code == "deadline_exceeded"


@pytest.mark.parametrize(("timeout_ms", "seconds"), [(None, 10), (b"250", 0.25), (b"1", 0.001), (b"99999999", 10)])
def test_the_deadline_is_the_clients_own_and_never_later_than_ours(timeout_ms: bytes | None, seconds: float) -> None:
    context = middleware.RequestContext()
    headers = {} if timeout_ms is None else {b"x-request-timeout-ms": timeout_ms}
    left_s = request_module.checked_deadline_s(headers, context) - time.monotonic()
    assert left_s == pytest.approx(seconds, abs=0.05)


def test_at_its_deadline_a_request_ends_and_work_that_still_waits_never_runs() -> None:
    ran: list[int] = []
    free = threading.Event()

    async def crowd() -> list[object]:
        threads = Threads(1)
        began_s = time.monotonic()

        async def run(number: int) -> None:
            async with with_deadline(began_s + 0.1):
                await threads.run(lambda: (free.wait(10), ran.append(number)))

        outcomes = await asyncio.gather(*(run(number) for number in range(100)), return_exceptions=True)
        assert time.monotonic() - began_s < 0.3
        free.set()
        await threads.run(lambda: ran.append(-1))
        return list(outcomes)

    outcomes = asyncio.run(crowd())
    assert {error.code for error in outcomes if isinstance(error, RequestError)} == {"deadline_exceeded"}
    assert ran == [0, -1]
