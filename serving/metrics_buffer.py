"""Counts and observations of requests, written to Prometheus' files a little later and all at once."""

import logging
import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from bentoml._internal.context import server_context

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram
    from starlette.applications import Starlette

    from serving.metrics import Metrics

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

    def count_predictions(self, metrics: "Metrics", best: Iterable[tuple[int, float]]) -> None:
        """Count inputs, given as index and probability of their most probable label."""
        for index, confidence in best:
            self.count(metrics.predictions[index])
            self.observe(metrics.confidence, confidence)

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


class Traffic:
    """Counts requests in the metrics of BentoML's own layer, in its place: the layer takes 30 us of each request."""

    def __init__(self, app: "Starlette") -> None:
        """Take the layer out of BentoML's app. Where BENTOML_CONFIG has switched it off, nothing is counted."""
        self._layer: Any = None
        for layer in app.user_middleware:
            if getattr(layer.cls, "__name__", "").endswith("TrafficMetricsMiddleware"):
                app.user_middleware.remove(layer)
                self._layer = layer.cls(app, *layer.args, **layer.kwargs)
                break
        self._inside: dict[str, int] = {}
        self._gauge, self._series = cache(self._make_gauge), cache(self._make_series)

    def began(self, path: str) -> None:
        """Count a request of a known path that has come in."""
        if self._layer is None:
            return
        self._inside[path] = self._inside.get(path, 0) + 1
        metrics_buffer.set_gauge(self._gauge(path), self._inside[path])

    def ended(self, path: str, status: int, seconds: float) -> None:
        """Count its answer; a status of 0 says that it has none."""
        if self._layer is None:
            return
        self._inside[path] -= 1
        metrics_buffer.set_gauge(self._gauge(path), self._inside[path])
        if not status:
            return  # cancelled before its answer began; BentoML's layer counts none of these either
        counter, histogram, last_gauge = self._series(path, status)
        metrics_buffer.count(counter)
        metrics_buffer.observe(histogram, seconds)
        if last_gauge is not None:
            metrics_buffer.set_gauge(last_gauge, time.time())

    def _make_gauge(self, path: str) -> "Gauge":
        if not self._layer._is_setup:  # late, as in BentoML: by then the folder that the workers share is known
            from serving.prometheus_private import reserve_room

            reserve_room()
            self._layer._setup()
        gauge: Gauge = self._layer.metrics_request_in_progress.labels(endpoint=path, **_service_labels())
        return gauge

    def _make_series(self, path: str, status: int) -> tuple["Counter", "Histogram", "Gauge | None"]:
        labels = {"endpoint": path, **_service_labels(), "http_response_code": status}
        is_probe = path.startswith(tuple(self._layer.skip_paths))
        return (
            self._layer.metrics_request_total.labels(**labels),
            self._layer.metrics_request_duration.labels(**labels),
            None if is_probe else self._layer.metrics_last_request_timestamp.labels(**_service_labels()),
        )


def _service_labels() -> dict[str, str]:
    return {
        "service_name": server_context.bento_name,
        "service_version": server_context.bento_version,
        "runner_name": server_context.service_name or "",
    }
