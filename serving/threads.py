"""Threads for work that would block the event loop: one per core, since onnxruntime releases the GIL while it runs."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from bentoml._internal.resource import CpuResource

from convoy.core import process
from serving.errors import RequestError

T = TypeVar("T")


def usable_cores() -> int:
    """How many cores this process may use: the lesser of its affinity and its container's limit."""
    return max(1, min(process.usable_cores(), math.ceil(CpuResource.from_system())))


class Threads:
    """A pool for work with deadlines: after them waiting work is dropped, running work keeps its thread to its end."""

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
