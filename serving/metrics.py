"""What Prometheus sees: series of each task and version, none for what a client sent; written a little later."""

import logging
import os
import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from convoy.core import process
from serving.adapters import observe_all, reserve_room

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

# A bare ONNX session takes 0.3 ms for an image and 5 ms for a text; the deadline is 10 s.
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64)
# An observation writes two numbers into a file that Prometheus reads. A request makes six of them, which cost as much
# as reading its image; for all requests of half a second together they cost as much as for one.
FLUSH_EVERY_S = 0.5
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
logger = logging.getLogger("bentoml.convoy")


@dataclass(frozen=True)
class Metrics:
    """The series of one version of a model."""

    seconds: "Histogram"
    explanation_seconds: "Histogram"
    batch_size: "Histogram"
    confidence: "Histogram"
    predictions: Mapping[int, "Counter"]  # by the label's index


def set_up() -> None:
    """Import what metrics need, as a worker starts: later there may be no descriptor left to read a module."""
    _families()


@cache
def metrics_of(task: str, version: str, labels: tuple[str, ...]) -> Metrics:
    """The series of a version; the same ones for the same version, however often it is loaded."""
    families = _families()
    names = (task, version)
    return Metrics(
        families.seconds.labels(*names),
        families.explanation_seconds.labels(*names),
        families.batch_size.labels(*names),
        families.confidence.labels(*names),
        {index: families.predictions.labels(*names, label) for index, label in enumerate(labels)},
    )


@cache
def errors_of(code: str, task: str) -> "Counter":
    """The counter of answers of 4xx and 5xx; `task` is "none" where the request reached no model."""
    return _families().errors.labels(code, task)


def reloads_of(task: str, outcome: str) -> "Counter":
    """The counter of deployments that were followed."""
    return _families().reloads.labels(task, outcome)


@cache
def logged_of(outcome: str) -> "Counter":
    """The counter of requests that were to be logged: written, dropped since too many waited, or failed."""
    return _families().logged.labels(outcome)


@cache
def waiting_of(queue: str) -> "Gauge":
    """The gauge of what waits or is being answered: requests of a task, explanations, or pieces of WebSockets."""
    return _families().waiting.labels(queue)


@cache
def open_streams() -> "Gauge":
    """The gauge of open WebSockets."""
    return _families().streams


@cache
def dropped_of(why: str) -> "Counter":
    """The counter of WebSockets that were ended: idle (sent nothing), slow (read nothing), expired or withdrawn."""
    return _families().dropped.labels(why)


def forget_dead_workers() -> None:
    """Take the gauges of dead workers out of the sum; BentoML does so only for workers that end by themselves."""
    from prometheus_client import multiprocess

    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(path.stem.rpartition("_")[2])
        if not process.exists(pid):
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Families:
    seconds: "Histogram"
    explanation_seconds: "Histogram"
    batch_size: "Histogram"
    confidence: "Histogram"
    predictions: "Counter"
    errors: "Counter"
    reloads: "Counter"
    logged: "Counter"
    waiting: "Gauge"
    streams: "Gauge"
    dropped: "Counter"


@cache
def _families() -> _Families:
    # Late: BentoML sets the folder that the workers' metrics share before prometheus_client may be imported.
    from prometheus_client import Counter, Gauge, Histogram

    reserve_room()
    model = ["task", "version"]
    return _Families(
        Histogram("convoy_answer_seconds", "From the head of a request to its 200", model, buckets=SECONDS),
        Histogram("convoy_explanation_seconds", "The same, of explanations", model, buckets=SECONDS),
        Histogram("convoy_batch_size", "Inputs that ran together", model, buckets=SIZES),
        Histogram("convoy_confidence", "Probability of the most probable label", model, buckets=CONFIDENCES),
        Counter("convoy_predictions_total", "Inputs by their most probable label", [*model, "label"]),
        Counter("convoy_faults_total", "Answers of 4xx and 5xx, refused at the door or later", ["code", "task"]),
        Counter("convoy_reloads_total", "Deployments that were followed: loaded, or refused", ["task", "outcome"]),
        Counter("convoy_logged_requests_total", "Requests that were to be logged, by what came of it", ["outcome"]),
        Gauge(
            "convoy_waiting_requests",
            "Requests inside, waiting or being answered",
            ["task"],
            multiprocess_mode="livesum",
        ),
        Gauge("convoy_open_streams", "WebSockets that are open", multiprocess_mode="livesum"),
        Counter(
            "convoy_dropped_streams_total",
            "WebSockets ended: the client was idle or slow, or the longest life had expired",
            ["why"],
        ),
    )


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
