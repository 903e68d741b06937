"""What Prometheus sees: series of each task and version; none for what a client sent."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from convoy.core import process

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

# A bare ONNX session takes 0.3 ms for an image and 5 ms for a text; the deadline is 10 s.
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONFIDENCES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


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

    from serving.prometheus_private import reserve_room

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
