"""How much may be inside at once; what comes beyond that is refused at the door, where it costs least."""

import time

from serving.errors import RequestError
from serving.metrics import waiting_of
from serving.metrics_buffer import tally

MOST_REQUESTS = 64  # of one task in one worker
MOST_EXPLANATIONS = 8  # of both tasks in one worker, which gives them one after the other
# Who would wait longer than this share of the time that he has is not let in: his answer might come after he has gone,
# and the work for it would be lost. Half, since waits are estimated, and the work itself takes time too.
WAITING_SHARE = 0.5
FORGETTING = 0.1  # weight of the newest interval in the mean
# Bodies that are in memory at once, beyond those so small that the number of connections limits them.
MOST_BYTES = 200_000_000
SMALL_BYTES = 65_536


class Capacity:
    """A bounded counter of one task's requests, which also knows how fast they leave; Prometheus sees it as `queue`.

    `refusal` is the message for those who are not let in, where the one of every request does not fit.
    """

    def __init__(self, queue: str, most_requests: int = MOST_REQUESTS, refusal: str = "") -> None:
        self.most_requests, self._queue, self._refusal = most_requests, queue, refusal
        self.inside = 0
        self.interval_s = 0.0  # mean time between two that leave, while there is always one inside
        self._busy_since_s = 0.0

    def enter(self, deadline_s: float) -> None:
        """Count a request whose body is here. Raises RequestError where it would wait too long, or is late already."""
        now_s = time.monotonic()
        if deadline_s <= now_s:
            raise RequestError("deadline_exceeded")
        waits_s = self.inside * self.interval_s
        if self.inside >= self.most_requests or waits_s > (deadline_s - now_s) * WAITING_SHARE:
            raise RequestError("overloaded", self._refusal)
        if self.inside == 0:
            self._busy_since_s = now_s
        self.inside += 1
        tally.show(waiting_of(self._queue), self.inside)

    def leave(self) -> None:
        """A request that has entered has its answer."""
        now_s = time.monotonic()
        self.interval_s += FORGETTING * (now_s - self._busy_since_s - self.interval_s)
        self._busy_since_s = now_s
        self.inside -= 1
        tally.show(waiting_of(self._queue), self.inside)


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
        """Bytes that were held are gone."""
        self.bytes -= count
