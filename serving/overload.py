"""How many requests and bytes a worker holds at once; more are refused before their work starts, at the least cost."""

import time

from serving.errors import RequestError
from serving.metrics import waiting_of
from serving.metrics_buffer import metrics_buffer

MOST_REQUESTS = 64  # of one task in one worker
MOST_EXPLANATIONS = 8  # of both tasks in one worker, which gives them one after the other
# A request that would wait longer than this share of its time is refused: its answer might come after its client has
# gone, and the work would be lost. Half, since waits are estimated, and the work itself takes time too.
WAITING_SHARE = 0.5
NEWEST_WEIGHT = 0.1  # weight of the newest interval in the mean
# Of large bodies in memory at once. Small ones are not counted: the number of connections limits them.
MOST_BYTES = 200_000_000
SMALL_BYTES = 65_536


class Capacity:
    """A bounded counter of one task's requests, which also measures how fast they leave; a metric shows it as `queue`.

    `refusal` is the message for those that are refused, where the usual one does not fit.
    """

    def __init__(self, queue: str, most_requests: int = MOST_REQUESTS, refusal: str = "") -> None:
        self.most_requests, self._queue, self._refusal = most_requests, queue, refusal
        self.inside = 0
        self.interval_s = 0.0  # mean time between two that leave, while there is always one inside
        self._busy_since_s = 0.0

    def enter(self, deadline_s: float) -> None:
        """Count a request whose body is read. Raises RequestError where it would wait too long, or is late already."""
        now_s = time.monotonic()
        if deadline_s <= now_s:
            raise RequestError("deadline_exceeded")
        wait_s = self.inside * self.interval_s
        if self.inside >= self.most_requests or wait_s > (deadline_s - now_s) * WAITING_SHARE:
            raise RequestError("overloaded", self._refusal)
        if self.inside == 0:
            self._busy_since_s = now_s
        self.inside += 1
        metrics_buffer.set_gauge(waiting_of(self._queue), self.inside)

    def leave(self) -> None:
        """Count one off: a request that has entered has its answer."""
        now_s = time.monotonic()
        self.interval_s += NEWEST_WEIGHT * (now_s - self._busy_since_s - self.interval_s)
        self._busy_since_s = now_s
        self.inside -= 1
        metrics_buffer.set_gauge(waiting_of(self._queue), self.inside)


class Budget:
    """Bytes of large bodies that one worker has in memory."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0

    def hold(self, count: int) -> None:
        """Count bytes that are about to be kept. Raises RequestError where there are too many."""
        if self.bytes + count > self.most_bytes:
            raise RequestError("overloaded", "too many large bodies are being read; ask again after Retry-After")
        self.bytes += count

    def release(self, count: int) -> None:
        """Count bytes off that were held."""
        self.bytes -= count
