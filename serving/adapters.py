"""All that Convoy takes of BentoML, uvicorn and prometheus_client that they do not document, and why.

Each part is a gain, not a need: with another version than the proven one the service starts without it, and says so.
"""

import logging
import math
import os
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml

from convoy.core import process

if TYPE_CHECKING:
    from prometheus_client import Histogram

# A test names them too: whoever raises one proves the parts below anew.
PROVEN = {"bentoml": "1.4.39", "uvicorn": "0.54.0", "prometheus-client": "0.26.0"}
METRICS_FILE_BYTES = 1 << 16  # of a new file, as in prometheus_client; it doubles when it is full
TRY_EVERY_S = 60.0  # how long after a failure room is reserved again
logger = logging.getLogger("bentoml.convoy")


@cache
def is_proven(package: str, gain: str) -> bool:
    """Whether the installed version is the proven one; else the log says, once, that `gain` is missing."""
    installed = version(package)
    if installed != PROVEN[package]:
        logger.warning("%s is %s, proven is %s: without %s", package, installed, PROVEN[package], gain)
    return installed == PROVEN[package]


def look_for_dead_workers_every(seconds: float) -> None:
    """For BentoML's supervisor, which is made after the service is loaded; by itself it looks every 10 s."""
    if is_proven("bentoml", "a killed worker back within seconds"):
        from bentoml._internal.utils import circus

        circus.create_standalone_arbiter = partial(circus.create_standalone_arbiter, check_delay=seconds)


def container_cores() -> int:
    """The cores that the container may use, as BentoML reads them from its cgroup; else those of the process."""
    if not is_proven("bentoml", "the container's limit of cores"):
        return process.usable_cores()
    from bentoml._internal.resource import CpuResource

    return math.ceil(CpuResource.from_system())


def forget_series_of_tasks() -> None:
    """Let BentoML make no series for the routes of its methods: they would be 0 for ever, as the middleware answers."""
    if is_proven("bentoml", "leaving out series of BentoML that are always 0"):
        bentoml.server_context.service_routes = []


def swagger_folder() -> Path | None:
    """BentoML's own copy of Swagger UI, which it serves at /static_content; None where its place is not known."""
    if not is_proven("bentoml", "the page to try the routes"):
        return None
    import bentoml._internal.server as bentoml_server

    return Path(bentoml_server.__file__).parent / "static_content"


def take_over_connections(workers: int) -> None:
    """Let uvicorn, which BentoML starts with its defaults, use the protocols with limits; no option of BentoML does."""
    if not is_proven("uvicorn", "limits of headers, of their time and of WebSockets' frames"):
        return
    from uvicorn.protocols.http import auto
    from uvicorn.protocols.websockets import auto as websockets_auto

    from serving.connections import Connection, LimitedWebSocketProtocol

    Connection.shared = workers > 1
    auto.AutoHTTPProtocol = Connection
    websockets_auto.AutoWebSocketsProtocol = LimitedWebSocketProtocol


def observe_all(histogram: "Histogram", observed: Sequence[float]) -> None:
    """Observe many values at once: for all requests of half a second together it costs as much as for one."""
    if not is_proven("prometheus-client", "observations that are written together"):
        for value in observed:
            histogram.observe(value)
        return
    bounds = histogram._upper_bounds
    for index, count in Counts(bisect_left(bounds, value) for value in observed).items():
        histogram._buckets[index].inc(count)
    histogram._sum.inc(sum(observed))


def reserve_room() -> None:
    """Let every metric that is made from now on write to a file whose room is reserved.

    Call it late: BentoML sets the folder that the workers' metrics share before prometheus_client may be imported.
    """
    if is_proven("prometheus-client", "metrics files that a full disk does not harm"):
        from prometheus_client import values
        from prometheus_client.mmap_dict import MmapedDict

        reserved: Any = type("ReservedFile", (_Reserved, MmapedDict), {})
        values.MmapedDict = reserved  # type: ignore[attr-defined]


class _Reserved:
    """Mixed into MmapedDict, the values of one process in a file: the room is reserved before anything is written.

    prometheus_client maps a sparse file into memory. On a full disk the kernel answers a write there with SIGBUS, which
    ends the process. Here a value without room stays in memory, and is written whole once there is room.
    """

    _capacity: int  # of MmapedDict: bytes of the file, and how many of them are used
    _used: int
    _init_value: Callable[[str], None]

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        assert not read_mode  # prometheus_client itself reads these files in another way
        self._path = filename
        self._is_open = False
        self._positions: dict[str, int] = {}
        self._failing = False
        self._try_again_s = 0.0  # of time.monotonic()

    def read_value(self, key: str) -> tuple[float, float]:
        """Value and timestamp; 0 for a key without room."""
        return super().read_value(key) if self._has_room(key) else (0.0, 0.0)  # type: ignore[misc]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write the value; a key without room is left out."""
        if self._has_room(key):
            super().write_value(key, value, timestamp)  # type: ignore[misc]

    def close(self) -> None:
        """Close the file, if it was ever opened."""
        if self._is_open:
            super().close()  # type: ignore[misc]
        self._is_open = False

    def _has_room(self, key: str) -> bool:
        if key in self._positions:
            return True
        if time.monotonic() < self._try_again_s:
            return False
        try:
            self._make_room(key)
        except OSError as error:
            self._try_again_s = time.monotonic() + TRY_EVERY_S
            if not self._failing:  # logged once, not for every value
                logger.error("requests are answered, new metrics are not written: %s: %s", self._path, error.strerror)
            self._failing = True
            return False
        self._failing = False
        return True

    def _make_room(self, key: str) -> None:
        """Raises OSError where the disk has no room for the key."""
        if not self._is_open:
            self._open()
        length = 4 + len(key.encode()) + 8 + 16  # as in MmapedDict._init_value, with the longest padding
        size = self._capacity
        while self._used + length > size:
            size *= 2
        if size > self._capacity:
            _reserve(self._path, size)
        if key not in self._positions:  # a dead process of the same id may have left a file
            self._init_value(key)

    def _open(self) -> None:
        try:
            _reserve(self._path, METRICS_FILE_BYTES)
            super().__init__(self._path)  # type: ignore[call-arg]
            self._is_open = True
        except OSError:
            with suppress(OSError):
                if os.path.getsize(self._path) == 0:  # an empty file would fail /metrics
                    os.unlink(self._path)
            raise


def _reserve(path: str, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
