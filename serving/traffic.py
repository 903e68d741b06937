"""BentoML's own metrics of requests, kept for Convoy's routes too."""

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from bentoml._internal.context import server_context
from starlette.applications import Starlette

from serving.metrics_buffer import tally

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram


class Traffic:
    """Counts what BentoML's layer counts, into that layer's metrics; the layer itself takes 30 us of each request."""

    def __init__(self, app: Starlette) -> None:
        """Take the layer out of BentoML's app. Where BENTOML_CONFIG has switched it off, nothing is counted."""
        self._layer: Any = None
        for layer in app.user_middleware:
            if getattr(layer.cls, "__name__", "").endswith("TrafficMetricsMiddleware"):
                app.user_middleware.remove(layer)
                self._layer = layer.cls(app, *layer.args, **layer.kwargs)
                break
        self._inside: dict[str, int] = {}
        self._gauge, self._series = cache(self._label_gauge), cache(self._label_series)

    def began(self, path: str) -> None:
        """A request of a known path is inside."""
        if self._layer is None:
            return
        self._inside[path] = self._inside.get(path, 0) + 1
        tally.show(self._gauge(path), self._inside[path])

    def ended(self, path: str, status: int, seconds: float) -> None:
        """It has its answer; a status of 0 says that it has none."""
        if self._layer is None:
            return
        self._inside[path] -= 1
        tally.show(self._gauge(path), self._inside[path])
        if not status:
            return  # cancelled before its answer began; BentoML's layer counts none of these either
        counter, histogram, last = self._series(path, status)
        tally.count(counter)
        tally.observe(histogram, seconds)
        if last is not None:
            tally.show(last, time.time())

    def _label_gauge(self, path: str) -> "Gauge":
        if not self._layer._is_setup:  # late, as BentoML does it: by then the folder that workers share is known
            from serving.prometheus_private import reserve_room

            reserve_room()
            self._layer._setup()
        gauge: Gauge = self._layer.metrics_request_in_progress.labels(endpoint=path, **_names())
        return gauge

    def _label_series(self, path: str, status: int) -> tuple["Counter", "Histogram", "Gauge | None"]:
        names = {"endpoint": path, **_names(), "http_response_code": status}
        probe = path.startswith(tuple(self._layer.skip_paths))
        return (
            self._layer.metrics_request_total.labels(**names),
            self._layer.metrics_request_duration.labels(**names),
            None if probe else self._layer.metrics_last_request_timestamp.labels(**_names()),
        )


def _names() -> dict[str, str]:
    return {
        "service_name": server_context.bento_name,
        "service_version": server_context.bento_version,
        "runner_name": server_context.service_name or "",
    }
