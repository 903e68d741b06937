"""All uses of private names of prometheus_client, which a release may change.

Import it late: BentoML sets the folder that the workers' metrics share before prometheus_client may be imported.
"""

import logging
import os
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Sequence
from contextlib import suppress

from prometheus_client import Histogram, values
from prometheus_client.mmap_dict import MmapedDict

FILE_BYTES = 1 << 16  # of a new file, as in prometheus_client; it doubles when it is full
TRY_EVERY_S = 60.0  # how long after a failure room is reserved again
logger = logging.getLogger("bentoml.convoy")


class ReservedFile(MmapedDict):
    """The values of one process in a file, whose room on the disk is reserved before anything is written.

    prometheus_client maps a sparse file into memory. On a full disk the kernel answers a write there with SIGBUS, which
    ends the process. Here a value without room stays in memory, and is written whole once there is room.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        assert not read_mode  # prometheus_client itself reads these files in another way
        self._path = filename
        self._is_open = False
        self._positions: dict[str, int] = {}
        self._failing = False
        self._try_again_s = 0.0  # of time.monotonic()

    def read_value(self, key: str) -> tuple[float, float]:
        """Value and timestamp; 0 for a key without room."""
        return super().read_value(key) if self._has_room(key) else (0.0, 0.0)  # type: ignore[no-untyped-call]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write the value; a key without room is left out."""
        if self._has_room(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the file, if it was ever opened."""
        if self._is_open:
            super().close()  # type: ignore[no-untyped-call]
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
            self._init_value(key)  # type: ignore[no-untyped-call]

    def _open(self) -> None:
        try:
            _reserve(self._path, FILE_BYTES)
            super().__init__(self._path)  # type: ignore[no-untyped-call]
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


def reserve_room() -> None:
    """Let every metric that is made from now on write to a ReservedFile."""
    values.MmapedDict = ReservedFile  # type: ignore[attr-defined]


def observe_all(histogram: Histogram, observed: Sequence[float]) -> None:
    """Observe many values at once; there is no public method for that."""
    bounds = histogram._upper_bounds
    for index, count in Counts(bisect_left(bounds, value) for value in observed).items():
        histogram._buckets[index].inc(count)
    histogram._sum.inc(sum(observed))
