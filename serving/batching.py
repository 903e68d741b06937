"""Inputs of several requests that wait at the same time run through the model together."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.core.paths import Task
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.metrics_buffer import tally
from serving.threads import Threads, until

# Inputs that run together. On one core, ms per text of 100 tokens: 0.59 alone, 0.42 by two, 0.38 by four or more; four
# have the least padding, and the shortest wait for each other. Per image 0.57 alone, 0.55 by four or more, but the code
# around the model stays in the caches: a whole request takes 6 % less by four, 8 % less by eight.
LARGEST: dict[Task, int] = {"image": 8, "text": 4}
SPREAD = 2.0  # no longer and no shorter than the oldest one by more than this factor: padding costs as much as words

Rows = NDArray[np.float32]


class _Item:
    """One prepared input that waits for its row of probabilities."""

    __slots__ = ("array", "deadline_s", "model", "row")

    def __init__(self, model: Deployed, array: NDArray[Any], deadline_s: float, row: "asyncio.Future[Rows]") -> None:
        self.model, self.array, self.deadline_s, self.row = model, array, deadline_s, row


class Batcher:
    """A queue that never sleeps; what runs its batches, and when, is what the two kinds differ in.

    A batch holds one model's inputs. The queue belongs to the event loop, so that nothing is locked.
    """

    def __init__(self) -> None:
        self._waiting: list[_Item] = []

    async def probabilities(self, model: Deployed, arrays: Sequence[NDArray[Any]], deadline_s: float) -> Rows:
        """Prepared arrays -> (inputs, labels) float32. Raises RequestError at the deadline: what waits never runs."""
        if time.monotonic() >= deadline_s:
            raise RequestError("deadline_exceeded")  # a free thread would be quicker than a timeout of 0
        loop = asyncio.get_running_loop()
        items = [_Item(model, array, deadline_s, loop.create_future()) for array in arrays]
        self._waiting += items
        try:
            return await self._wait(items, deadline_s)
        finally:
            for item in items:
                item.row.cancel()

    async def _wait(self, items: list[_Item], deadline_s: float) -> Rows:
        """See that what has been put into the queue runs; its rows."""
        raise NotImplementedError

    def _take(self, free: int = 1) -> list[_Item]:
        """The oldest item and those nearest to its length; an equal part of all that wait for each free thread."""
        self._waiting = [item for item in self._waiting if not item.row.done()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        length = len(oldest.array)
        fitting = [
            item
            for item in self._waiting
            if item.model is oldest.model and length / SPREAD <= len(item.array) <= length * SPREAD
        ]
        fitting.sort(key=lambda item: abs(len(item.array) - length))  # stable: the oldest stays first
        largest = LARGEST[oldest.model.predictor.card.task]
        batch = fitting[: min(largest, math.ceil(len(self._waiting) / free))]
        taken = set(map(id, batch))
        self._waiting = [item for item in self._waiting if id(item) not in taken]
        tally.observe(oldest.model.measures.batch_size, len(batch))
        return batch


class TurnBatcher(Batcher):
    """What is ready in one turn of the event loop runs in the next: for what a thread would cost more than it gains.

    After a batch the loop turns: it answers, sees who has come, and refuses. So the deadline needs no timer, which
    would cost as much as reading the body: what is late by its turn is refused there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._turns = False  # whether the next turn runs what waits

    async def _wait(self, items: list[_Item], deadline_s: float) -> Rows:
        self._turn()
        return await _rows_of(items)

    def _turn(self) -> None:
        if not self._turns:
            self._turns = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._turns = False
        self._refuse_late()
        if batch := self._take():
            _give(batch, _run_together(batch[0].model, [item.array for item in batch]))
            self._turn()  # behind those who have their rows now

    def _refuse_late(self) -> None:
        now_s = time.monotonic()
        for item in self._waiting:
            if item.deadline_s <= now_s and not item.row.done():
                item.row.set_exception(RequestError("deadline_exceeded"))


class ThreadBatcher(Batcher):
    """A free thread takes what waits at that moment."""

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self._threads = threads
        self._running: set[asyncio.Task[None]] = set()

    async def _wait(self, items: list[_Item], deadline_s: float) -> Rows:
        self._fill()
        async with until(deadline_s):
            return await _rows_of(items)

    def _fill(self) -> None:
        """Give every free thread something to do."""
        while (free := self._threads.count - len(self._running)) > 0 and (batch := self._take(free)):
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._fill()

    async def _run(self, batch: list[_Item]) -> None:
        model, arrays = batch[0].model, [item.array for item in batch]
        try:
            found: Sequence[Rows | Exception] = await self._threads.run(lambda: _run_together(model, arrays))
        except Exception as error:  # the pool itself; nobody may wait for ever
            found = [error] * len(batch)
        _give(batch, found)


async def _rows_of(items: list[_Item]) -> Rows:
    if len(items) == 1:
        return (await items[0].row)[np.newaxis]
    return np.stack(await asyncio.gather(*(item.row for item in items)))


def _give(batch: Sequence[_Item], found: Sequence[Rows | Exception]) -> None:
    for item, row in zip(batch, found, strict=True):
        if item.row.done():
            continue
        if isinstance(row, Exception):
            item.row.set_exception(row)
        else:
            item.row.set_result(row)


def _run_together(model: Deployed, arrays: Sequence[NDArray[Any]]) -> Sequence[Rows | Exception]:
    """A row each. Where the batch fails as a whole each runs alone, so that a bad one takes no other with it."""
    try:
        return list(model.predictor.probabilities(arrays))
    except Exception as error:
        if len(arrays) == 1:
            return [error]
    return [_run_together(model, [array])[0] for array in arrays]
