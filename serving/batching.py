"""Inputs of several requests that wait at the same time run through the model together."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.deployed import Deployed
from serving.exchange import Exchange
from serving.tally import tally
from serving.threads import Threads, until

# Inputs that run together. An LSTM on one core, ms per text of 100 tokens: 0.58 alone, 0.40 by two, 0.38 by four and by
# sixteen; four have the least padding, and the shortest wait for each other.
LARGEST = 4
SPREAD = 2.0  # no longer and no shorter than the oldest one by more than this factor: padding costs as much as words
import os
TURN_S = float(os.environ.get("TURN", "0.002"))
Rows = NDArray[np.float32]


class _Item:
    """One prepared input that waits for its row of probabilities."""

    __slots__ = ("array", "model", "row")

    def __init__(self, model: Deployed, array: NDArray[Any], row: "asyncio.Future[Rows]") -> None:
        self.model, self.array, self.row = model, array, row


class Batcher:
    """A queue that never sleeps: a free thread takes what waits at that moment, the oldest and those of its length.

    A batch holds one model's inputs. All but the model's run happens on the event loop, so that nothing is locked.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._waiting: list[_Item] = []
        self._running: set[asyncio.Task[None]] = set()

    async def probabilities(self, model: Deployed, arrays: Sequence[NDArray[Any]], deadline_s: float) -> Rows:
        """Prepared arrays -> (inputs, labels) float32. Raises Fault at the deadline: what still waits never runs."""
        loop = asyncio.get_running_loop()
        items = [_Item(model, array, loop.create_future()) for array in arrays]
        try:
            async with until(deadline_s):
                self._waiting += items
                self._fill()
                return np.stack(await asyncio.gather(*(item.row for item in items)))
        finally:
            for item in items:
                item.row.cancel()

    def _fill(self) -> None:
        """Give every free thread something to do."""
        while len(self._running) < self._threads.count and (batch := self._take()):
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._fill()

    def _take(self) -> list[_Item]:
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
        free = self._threads.count - len(self._running)
        batch = fitting[: min(LARGEST, math.ceil(len(self._waiting) / free))]
        taken = set(map(id, batch))
        self._waiting = [item for item in self._waiting if id(item) not in taken]
        return batch

    async def _run(self, batch: list[_Item]) -> None:
        model, arrays = batch[0].model, [item.array for item in batch]
        tally.observe(model.measures.batch_size, len(batch))
        try:
            found: Sequence[Rows | Exception] = await self._threads.run(lambda: _run_together(model, arrays))
        except Exception as error:  # the pool itself; nobody may wait for ever
            found = [error] * len(batch)
        _give(batch, found)


class TurnBatcher:
    """Inputs that are ready in one turn of the event loop run there together, no longer than TURN_S at a time.

    For what takes less than a thread would. Between two batches the loop turns: it sees who has come, and refuses.
    """

    def __init__(self) -> None:
        self._waiting: list[_Item] = []
        self._has_run = False  # in this turn

    async def probabilities(self, model: Deployed, array: NDArray[Any], exchange: Exchange) -> Rows:
        """A prepared array -> (1, labels) float32. Raises Fault where its turn comes too late."""
        loop = asyncio.get_running_loop()
        item = _Item(model, array, loop.create_future())
        self._waiting.append(item)
        await asyncio.sleep(0)  # whoever else is ready in this turn
        if not self._has_run:
            self._run()
        row = item.row.result() if item.row.done() else await item.row
        exchange.refuse_if_late()
        return row[np.newaxis]

    def _run(self) -> None:
        self._waiting = [item for item in self._waiting if not item.row.done()]
        self._has_run = bool(self._waiting)
        if not self._waiting:
            return
        asyncio.get_running_loop().call_soon(self._run)
        model = self._waiting[0].model
        most = max(1, int(TURN_S / model.run_s))
        batch = [item for item in self._waiting if item.model is model][:most]
        tally.observe(model.measures.batch_size, len(batch))
        _give(batch, _run_together(model, [item.array for item in batch]))


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
