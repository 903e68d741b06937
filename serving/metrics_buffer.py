"""Counts and observations of requests, written to Prometheus' files a little later and all at once."""

import logging
import threading
from collections import Counter as Counts
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

# An observation writes two numbers into a file that Prometheus reads. A request makes ten of them, which cost as much
# as reading its image; for all requests of half a second together they cost as much as for one.
FLUSH_EVERY_S = 0.5
logger = logging.getLogger("bentoml.convoy")


class MetricsBuffer:
    """Counts and observations since the last flush, which a kill loses; any thread may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counts[Counter] = Counts()
        self._observations: dict[Histogram, list[float]] = {}
        self._gauges: dict[Gauge, float] = {}
        self._failed: set[object] = set()
        self._stop = threading.Event()

    def count(self, counter: "Counter") -> None:
        """Add one."""
        with self._lock:
            self._counts[counter] += 1

    def observe(self, histogram: "Histogram", value: float) -> None:
        """Add one value."""
        with self._lock:
            self._observations.setdefault(histogram, []).append(value)

    def set_gauge(self, gauge: "Gauge", value: float) -> None:
        """Set the value from now on."""
        with self._lock:
            self._gauges[gauge] = value

    def flush(self) -> None:
        """Write to Prometheus' files. A value that cannot be counted is lost, and logged once for each metric."""
        from serving.prometheus_private import observe_all  # late, as that module says

        with self._lock:
            counts, self._counts = self._counts, Counts()
            observations, self._observations = self._observations, {}
            gauges, self._gauges = self._gauges, {}
            for counter, count in counts.items():
                self._write(counter, partial(counter.inc, count))
            for histogram, values in observations.items():
                self._write(histogram, partial(observe_all, histogram, values))
            for gauge, value in gauges.items():
                self._write(gauge, partial(gauge.set, value))

    def start(self) -> None:
        """Flush regularly, by a thread."""
        self._stop = threading.Event()
        threading.Thread(target=self._flush_regularly, args=(self._stop,), name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Flush what is left, and stop the thread."""
        self._stop.set()
        self.flush()

    def _write(self, metric: object, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # of any kind: the other metrics are still to be counted
            if metric not in self._failed:
                logger.exception("%s cannot be counted", metric)
            self._failed.add(metric)

    def _flush_regularly(self, stop: threading.Event) -> None:
        while not stop.wait(FLUSH_EVERY_S):
            self.flush()


metrics_buffer = MetricsBuffer()  # of this process
