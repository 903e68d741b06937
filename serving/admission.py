"""Who is let in: by Host, Origin and API key, and how many requests and bytes a worker holds at once.

What is refused is refused before its work starts, at the least cost.
"""

import ipaddress
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from urllib.parse import urlsplit

from serving.errors import RequestError
from serving.metrics import metrics_buffer, waiting_of

HOSTS_VARIABLE = "CONVOY_HOSTS"
ORIGINS_VARIABLE = "CONVOY_ORIGINS"
KEY_VARIABLE = "CONVOY_API_KEY"
MIN_KEY_CHARACTERS = 16
MOST_REQUESTS = 64  # of one task in one worker
MOST_EXPLANATIONS = 8  # of all tasks in one worker, which gives them one after the other
# A request that would wait longer than this share of its time is refused: its answer might come after its client has
# gone, and the work would be lost. Half, since waits are estimated, and the work itself takes time too.
WAITING_SHARE = 0.5
NEWEST_WEIGHT = 0.1  # weight of the newest interval in the mean
# Of large bodies in memory at once. Small ones are not counted: the number of connections limits them.
MOST_BYTES = 200_000_000
SMALL_BYTES = 65_536


@dataclass(frozen=True)
class Security:
    """Host names of this service, origins of pages that may use it, and the API key; without a key anyone may use it.

    A page can point its own name at 127.0.0.1 (DNS rebinding) and can post to any address (request forgery). The
    first has that name as Host, the second has its Origin. An address as Host cannot come of rebinding.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    key: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Security":
        """By the environment: comma-separated lists, and the key. Raises ValueError for a short key."""
        key = environment.get(KEY_VARIABLE, "")
        if key and len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"{KEY_VARIABLE} has {len(key)} characters, at least {MIN_KEY_CHARACTERS} are expected")
        return cls(
            _split_names(environment.get(HOSTS_VARIABLE, "")), _split_names(environment.get(ORIGINS_VARIABLE, "")), key
        )

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise RequestError where the request is not allowed."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_known_host(host):
            raise RequestError("forbidden_host")
        origin = headers.get(b"origin")
        if origin is not None and not self._is_allowed_origin(origin.decode("latin-1").lower(), host):
            raise RequestError("forbidden_origin")
        if self.key and not compare_digest(_sent_key(headers), self.key.encode()):
            raise RequestError("unauthorized", headers={"www-authenticate": "Bearer"})

    def _is_known_host(self, host: str) -> bool:
        if not host:
            return True  # HTTP/1.0; a browser always sends one
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return name == "localhost" or name in self.hosts or "*" in self.hosts or _is_address(name)

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        try:
            return urlsplit(origin).netloc == host or origin in self.origins
        except ValueError:  # such as `http://[`, which is no URL
            return False


def _split_names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower().rstrip("/") for name in text.split(",") if name.strip())


def _is_address(name: str) -> bool:
    if name == "127.0.0.1":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _sent_key(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


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
