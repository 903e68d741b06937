"""Inputs of several requests run together: each gets its own row, nobody waits for ever, a bad one fails alone."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Histogram

from serving.batching import SPREAD, Batcher, EventLoopBatcher, ThreadBatcher, Threads
from serving.deployed import Deployed
from serving.errors import RequestError

FOREVER = float("inf")
LARGEST = 4


class Model:
    """A stand-in for what is deployed: an array's row is its sum; it can be held or slow, and it can fail."""

    def __init__(self, bad: int = -1, takes_s: float = 0) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()
        self.bad, self.takes_s = bad, takes_s
        self.predictor = self
        self.kind = SimpleNamespace(LARGEST_BATCH=LARGEST)
        self.metrics = SimpleNamespace(batch_size=Histogram("batch_size", "", registry=CollectorRegistry()))

    def probabilities(self, arrays: list[NDArray[Any]]) -> NDArray[np.float32]:
        self.free.wait(10)
        time.sleep(self.takes_s)
        self.batches.append([len(array) for array in arrays])
        if any(array[0] == self.bad for array in arrays):
            raise ValueError("a bad one")
        return np.array([[array.sum()] for array in arrays], dtype=np.float32)


def ask(batcher: Batcher, model: Model, *arrays: NDArray[Any], deadline_s: float = FOREVER) -> Any:
    return batcher.probabilities(model, arrays, deadline_s)  # type: ignore[arg-type]


def ones(length: int, first: int = 1) -> NDArray[Any]:
    array = np.ones(length)
    array[0] = first
    return array


KINDS: dict[str, Callable[[], Batcher]] = {
    "in turns": EventLoopBatcher,
    "by one thread": lambda: ThreadBatcher(Threads(1)),
    "by three threads": lambda: ThreadBatcher(Threads(3)),
}
of_each_kind = pytest.mark.parametrize("kind", KINDS)


@of_each_kind
@settings(max_examples=40, deadline=None)
@given(requests=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), min_size=1, max_size=30))
def test_every_request_gets_its_own_rows_in_its_order(kind: str, requests: list[list[int]]) -> None:
    model = Model()

    async def all_at_once() -> list[NDArray[np.float32]]:
        batcher = KINDS[kind]()
        return await asyncio.gather(*(ask(batcher, model, *map(ones, lengths)) for lengths in requests))

    for lengths, rows in zip(requests, asyncio.run(all_at_once()), strict=True):
        assert rows[:, 0].tolist() == lengths
    for batch in model.batches:
        assert len(batch) <= LARGEST and max(batch) <= min(batch) * SPREAD**2
    assert sorted(chain(*model.batches)) == sorted(chain(*requests))


def test_what_waits_while_a_thread_is_busy_runs_together_and_what_comes_first_runs_at_once() -> None:
    model = Model()

    async def one_then_many() -> None:
        batcher = ThreadBatcher(Threads(1))
        model.free.clear()
        tasks = [asyncio.create_task(ask(batcher, model, ones(10))) for _ in range(1 + 2 * LARGEST)]
        await asyncio.sleep(0.05)
        model.free.set()
        await asyncio.gather(*tasks)

    asyncio.run(one_then_many())
    assert model.batches == [[10], [10] * LARGEST, [10] * LARGEST]


def test_what_is_ready_in_one_turn_runs_together_and_between_two_batches_the_loop_turns() -> None:
    model, seen = Model(), []

    async def many_and_one_who_looks() -> None:
        batcher = EventLoopBatcher()
        tasks = [asyncio.create_task(ask(batcher, model, ones(10))) for _ in range(2 * LARGEST + 1)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            seen.append(len(model.batches))
        await ask(batcher, model, ones(3))

    asyncio.run(many_and_one_who_looks())
    assert model.batches == [[10] * LARGEST, [10] * LARGEST, [10], [3]]
    assert set(seen) == {0, 1, 2, 3}


@of_each_kind
def test_a_batch_holds_one_model_only(kind: str) -> None:
    first, second = Model(), Model()

    async def mixed() -> None:
        batcher = KINDS[kind]()
        await asyncio.gather(*(ask(batcher, model, ones(7)) for model in (first, second) * 4))

    asyncio.run(mixed())
    assert sum(map(len, first.batches)) == sum(map(len, second.batches)) == 4


@of_each_kind
def test_a_bad_input_fails_its_own_request_and_no_other(kind: str) -> None:
    model = Model(bad=5)

    async def mixed() -> list[Any]:
        batcher = KINDS[kind]()
        tasks = [asyncio.create_task(ask(batcher, model, ones(4, first))) for first in (1, 1, 5, 1, 1)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(mixed())
    assert isinstance(outcomes[2], ValueError)
    assert [row[0, 0] for row in outcomes if not isinstance(row, Exception)] == [4] * 4


@of_each_kind
def test_what_comes_too_late_never_runs_though_everything_is_free(kind: str) -> None:
    model = Model()

    async def late() -> list[Any]:
        batcher = KINDS[kind]()
        return await asyncio.gather(
            *(ask(batcher, model, ones(2), deadline_s=0) for _ in range(20)), return_exceptions=True
        )

    outcomes = asyncio.run(late())
    assert [error.code for error in outcomes if isinstance(error, RequestError)] == ["deadline_exceeded"] * 20
    assert not model.batches


def test_what_nobody_waits_for_any_more_never_runs() -> None:
    model = Model()

    async def late() -> list[Any]:
        batcher = ThreadBatcher(Threads(1))
        model.free.clear()
        running = asyncio.create_task(ask(batcher, model, ones(3)))
        await asyncio.sleep(0.02)
        soon = time.monotonic() + 0.05
        late = [asyncio.create_task(ask(batcher, model, ones(9), deadline_s=soon)) for _ in range(5)]
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        model.free.set()
        await running
        return outcomes

    outcomes = asyncio.run(late())
    assert [error.code for error in outcomes if isinstance(error, RequestError)] == ["deadline_exceeded"] * 5
    assert model.batches == [[3]]


def test_what_is_late_by_its_turn_never_runs_and_fails_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(takes_s=0.06)

    async def more_than_there_is_time_for() -> list[Any]:
        batcher, soon = EventLoopBatcher(), time.monotonic() + 0.05
        first = asyncio.create_task(ask(batcher, model, *[ones(10)] * LARGEST))
        late = [asyncio.create_task(ask(batcher, model, *[ones(10)] * count, deadline_s=soon)) for count in (1, 9, 1)]
        patient = asyncio.create_task(ask(batcher, model, ones(10)))
        return await asyncio.gather(first, *late, patient, return_exceptions=True)

    first, *late, patient = asyncio.run(more_than_there_is_time_for())
    assert [error.code for error in late] == ["deadline_exceeded"] * 3
    assert (len(first), len(patient)) == (LARGEST, 1)
    assert model.batches == [[10] * LARGEST, [10]]
    gc.collect()
    assert not caplog.records  # asyncio tells of errors that nobody has looked at


@of_each_kind
@pytest.mark.parametrize("count", [1, 7, 40])
def test_real_texts_together_answer_as_each_alone(text_model: Deployed, count: int, kind: str) -> None:
    words = ["good", "bad", "film", "the"]
    arrays = [text_model.predictor.prepare(" ".join(words[i % 4] for i in range(1, 2 + i))).array for i in range(count)]

    async def together() -> list[NDArray[np.float32]]:
        batcher = KINDS[kind]()
        return await asyncio.gather(*(batcher.probabilities(text_model, [array], FOREVER) for array in arrays))

    for array, rows in zip(arrays, asyncio.run(together()), strict=True):
        assert np.abs(rows - text_model.predictor.probabilities([array])).max() < 1e-6
