"""What is counted on the way of a request, brought to Prometheus a little later and all at once."""

import logging
import threading
from collections import Counter as Counts
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

# An observation writes two numbers into a file that the workers share. A request makes ten of them, which cost it as
# much as reading its image; for all requests of half a second together they cost as much as for one.
FLUSH_EVERY_S = 0.5
logger = logging.getLogger("bentoml.convoy")


class MetricsBuffer:
    """Counts and observations since the last time, which a kill loses; any thread may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counts[Counter] = Counts()
        self._observed: dict[Histogram, list[float]] = {}
        self._shown: dict[Gauge, float] = {}
        self._failed: set[object] = set()
        self._stop = threading.Event()

    def count(self, counter: "Counter") -> None:
        """One more."""
        with self._lock:
            self._counts[counter] += 1

    def observe(self, histogram: "Histogram", value: float) -> None:
        """One more value."""
        with self._lock:
            self._observed.setdefault(histogram, []).append(value)

    def show(self, gauge: "Gauge", value: float) -> None:
        """What holds from now on."""
        with self._lock:
            self._shown[gauge] = value

    def bring(self) -> None:
        """Let Prometheus know. A value that cannot be counted is lost, and logged once for each metric."""
        from serving.prometheus_private import observe_all  # late, as that module says

        with self._lock:
            counts, self._counts = self._counts, Counts()
            observed, self._observed = self._observed, {}
            shown, self._shown = self._shown, {}
            for counter, count in counts.items():
                self._try(counter, partial(counter.inc, count))
            for histogram, values in observed.items():
                self._try(histogram, partial(observe_all, histogram, values))
            for gauge, value in shown.items():
                self._try(gauge, partial(gauge.set, value))

    def start(self) -> None:
        """Bring it regularly, by a thread."""
        self._stop = threading.Event()
        threading.Thread(target=self._bring_regularly, args=(self._stop,), name="tally", daemon=True).start()

    def stop(self) -> None:
        """Bring what is left, and no more."""
        self._stop.set()
        self.bring()

    def _try(self, metric: object, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # whatever it is: the other metrics are still to be counted
            if metric not in self._failed:
                logger.exception("%s cannot be counted", metric)
            self._failed.add(metric)

    def _bring_regularly(self, stop: threading.Event) -> None:
        while not stop.wait(FLUSH_EVERY_S):
            self.bring()


tally = MetricsBuffer()  # of this process
