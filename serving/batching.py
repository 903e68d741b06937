"""Threads for the work of models; inputs of several requests that wait at the same time run together."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convoy.core import process
from serving.adapters import container_cores
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.metrics import metrics_buffer

QUICK_S = 0.002  # of a run; a slower model would keep the event loop from refusing requests beyond the capacity
QUICK_BYTES = 64 * 1024  # of a body that is read on the event loop; a form is read in 0.1 ms
SPREAD = 2.0  # no longer and no shorter than the oldest one by more than this factor: padding costs as much as words

Rows = NDArray[np.float32]
T = TypeVar("T")


def usable_cores() -> int:
    """How many cores this process may use: the lesser of its affinity and its container's limit."""
    return max(1, min(process.usable_cores(), container_cores()))


class Threads:
    """A pool for work that would block the event loop: one per core, as onnxruntime releases the GIL while it runs.

    At a deadline waiting work is dropped; running work keeps its thread to its end.
    """

    def __init__(self, count: int | None = None, name: str = "predict") -> None:
        self.count = count or usable_cores()
        self._pool = ThreadPoolExecutor(self.count, name)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, or what it raises. Cancelled before a thread takes it, it never runs."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


@asynccontextmanager
async def with_deadline(deadline_s: float) -> AsyncIterator[None]:
    """Raises RequestError where the block has not ended at the deadline (time.monotonic())."""
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise RequestError("deadline_exceeded")
    try:
        async with asyncio.timeout(None if left_s == float("inf") else left_s):
            yield
    except TimeoutError:
        raise RequestError("deadline_exceeded") from None


class _Item:
    """One prepared input that waits for its row of probabilities."""

    __slots__ = ("array", "deadline_s", "model", "row")

    def __init__(self, model: Deployed, array: NDArray[Any], deadline_s: float, row: "asyncio.Future[Rows]") -> None:
        self.model, self.array, self.deadline_s, self.row = model, array, deadline_s, row


class Batcher:
    """A queue of inputs; its subclasses differ in what runs its batches, and when.

    A batch holds one model's inputs. Only the event loop touches the queue, so it needs no lock.
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
        """Let the queue run, and give the rows of these items."""
        raise NotImplementedError

    def _take_batch(self, free_threads: int = 1) -> list[_Item]:
        """The oldest item and those nearest to its length; each free thread gets an equal part of the queue."""
        self._waiting = [item for item in self._waiting if not item.row.done()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        length = len(oldest.array)
        similar = [
            item
            for item in self._waiting
            if item.model is oldest.model and length / SPREAD <= len(item.array) <= length * SPREAD
        ]
        similar.sort(key=lambda item: abs(len(item.array) - length))  # stable: the oldest stays first
        batch = similar[: min(oldest.model.kind.LARGEST_BATCH, math.ceil(len(self._waiting) / free_threads))]
        batch_ids = set(map(id, batch))
        self._waiting = [item for item in self._waiting if id(item) not in batch_ids]
        metrics_buffer.observe(oldest.model.metrics.batch_size, len(batch))
        return batch


class EventLoopBatcher(Batcher):
    """Runs in the next turn of the event loop what came in this one: for models so quick that a thread costs more.

    After each batch the loop turns: it sends answers, accepts requests, and refuses. So the deadline needs no timer,
    which would cost as much as reading the body: an input that is late in its turn is refused there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_scheduled = False  # whether the next turn runs a batch

    async def _wait(self, items: list[_Item], deadline_s: float) -> Rows:
        self._schedule()
        return await _gather_rows(items)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        self._refuse_late()
        if batch := self._take_batch():
            _set_outcomes(batch, _run_batch(batch[0].model, [item.array for item in batch]))
            self._schedule()  # after the coroutines that have their rows now

    def _refuse_late(self) -> None:
        now_s = time.monotonic()
        for item in self._waiting:
            if item.deadline_s <= now_s and not item.row.done():
                item.row.set_exception(RequestError("deadline_exceeded"))


class ThreadBatcher(Batcher):
    """A free thread takes a batch of the inputs that wait at that moment."""

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self._threads = threads
        self._running: set[asyncio.Task[None]] = set()

    async def _wait(self, items: list[_Item], deadline_s: float) -> Rows:
        self._start_batches()
        async with with_deadline(deadline_s):
            return await _gather_rows(items)

    def _start_batches(self) -> None:
        """Give every free thread a batch."""
        while (free := self._threads.count - len(self._running)) > 0 and (batch := self._take_batch(free)):
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._start_batches()

    async def _run(self, batch: list[_Item]) -> None:
        model, arrays = batch[0].model, [item.array for item in batch]
        try:
            outcomes: Sequence[Rows | Exception] = await self._threads.run(lambda: _run_batch(model, arrays))
        except Exception as error:  # of the pool itself; no input may wait for ever
            outcomes = [error] * len(batch)
        _set_outcomes(batch, outcomes)


async def _gather_rows(items: list[_Item]) -> Rows:
    if len(items) == 1:
        return (await items[0].row)[np.newaxis]
    return np.stack(await asyncio.gather(*(item.row for item in items)))


def _set_outcomes(batch: Sequence[_Item], outcomes: Sequence[Rows | Exception]) -> None:
    for item, row in zip(batch, outcomes, strict=True):
        if item.row.done():
            continue
        if isinstance(row, Exception):
            item.row.set_exception(row)
        else:
            item.row.set_result(row)


def _run_batch(model: Deployed, arrays: Sequence[NDArray[Any]]) -> Sequence[Rows | Exception]:
    """One row per input. Where the batch fails, each runs alone, so that a bad input fails no other."""
    try:
        return list(model.predictor.probabilities(arrays))
    except Exception as error:
        if len(arrays) == 1:
            return [error]
    return [_run_batch(model, [array])[0] for array in arrays]
