"""The lines that a training sends -> its run in MLflow while it trains; MLflow may be away or slow."""

import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mlflow import MlflowClient

from convoy.core import locks, process
from convoy.core.process import process_tags
from convoy.tracking import mlflow_runs, settings
from convoy.tracking.run_content import RunContent, curves_of, texts

RETRY_S = 5  # while MLflow does not answer
LINGER_S = 30  # for writing to MLflow after the training has ended
_KILLED_EVENT = {"event": "end", "status": "KILLED", "reason": "its process ended without a word"}

Event = dict[str, Any]


def close_orphaned_runs(client: MlflowClient) -> list[str]:
    """Mark the abandoned runs of this machine KILLED, and return their names; other machines' runs stay as they are."""
    experiments = [entry.experiment_id for entry in client.search_experiments(filter_string="name LIKE 'convoy-%'")]
    if not experiments:
        return []
    query = f"attributes.status = 'RUNNING' and tags.`{process.HOST}` = '{socket.gethostname()}'"
    orphans = [run for run in client.search_runs(experiments, query) if not process.is_alive(run.data.tags)]
    for run in orphans:
        reason = f"its process {run.data.tags.get(process.PID)} is no longer there"
        client.set_tag(run.info.run_id, mlflow_runs.END_REASON, reason)
        client.set_terminated(run.info.run_id, "KILLED")
    return [str(run.info.run_name) for run in orphans]


def follow(lines: Iterable[str]) -> None:
    """Write what the training sends to MLflow until the end is written; give up LINGER_S after the last line.

    `python -m convoy publish` adds what did not arrive; of a training that failed it is lost.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    done = threading.Event()
    # Reading the lines never waits for MLflow, so the pipe never fills and training loses nothing.
    threading.Thread(target=_read_lines, args=(lines, events, done), daemon=True).start()
    try:
        start = events.get()
        if start["event"] == "start":
            _follow_training(start, events)
    finally:
        done.set()


def _follow_training(start: Event, events: "SimpleQueue[Event]") -> None:
    lock = Path(f".run/training/{start['candidate']}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Wait for the follower of a killed training: it may still mark the run that this training continues.
    with locks.hold_when_free(lock):
        run = _LiveRun(start)
        run.write()
        while not run.is_complete:
            for event in _next_events(events, None if run.is_up_to_date else RETRY_S):
                run.add(event)
            run.write()


def _read_lines(lines: Iterable[str], events: "SimpleQueue[Event]", done: threading.Event) -> None:
    for line in lines:
        with suppress(ValueError):  # the half line of a training that was killed
            events.put(json.loads(line))
    events.put(_KILLED_EVENT)
    if not done.wait(LINGER_S):
        os._exit(1)  # by force: MLflow's client may hang in a request


def _next_events(events: "SimpleQueue[Event]", timeout_s: float | None) -> Iterator[Event]:
    """Wait for an event, then yield all that have arrived; none after the timeout."""
    with suppress(Empty):
        yield events.get(timeout=timeout_s)
        while True:
            yield events.get_nowait()


class _LiveRun:
    """All that one training has sent, and whether MLflow has it."""

    def __init__(self, start: Event) -> None:
        self.start = start
        self.rows: list[Event] = list(start["rows"])
        self.end: Event | None = None
        self.is_up_to_date = False
        self._process = process_tags(start["pid"])
        self._client: MlflowClient | None = None
        self._run_id: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether MLflow has everything, the end included."""
        return self.end is not None and self.is_up_to_date

    def add(self, event: Event) -> None:
        """Add an event; of two ends the first counts."""
        if event["event"] == "epoch":
            self.rows.append(event["row"])
        elif self.end is None:
            self.end = event
        else:
            return
        self.is_up_to_date = False

    def write(self) -> None:
        """Add to MLflow what it lacks; where that fails, print why and leave it to the next call."""
        if self.is_up_to_date:
            return
        try:
            self._write()
            self.is_up_to_date = True
        except Exception as error:  # MLflow raises many kinds, and none may end the follower
            self._run_id = None  # by the next call another run may be the right one
            print(f"MLflow ({settings.tracking_uri()}): {error}", flush=True)

    def _write(self) -> None:
        if self._client is None:
            client = _open_or_make_store()
            close_orphaned_runs(client)
            self._client = client
        client, content = self._client, self._content()
        self._run_id = self._run_id or self._open_run(client, content)
        mlflow_runs.add_values(client, client.get_run(self._run_id), content, mlflow_runs.Added())
        if self.end is not None:
            if self.end["reason"]:
                client.set_tag(self._run_id, mlflow_runs.END_REASON, self.end["reason"])
            client.set_terminated(self._run_id, self.end["status"])

    def _open_run(self, client: MlflowClient, content: RunContent) -> str:
        """The run of this training, made or reopened, tagged with the process of the training."""
        experiment = mlflow_runs.experiment_of(client, self.start["task"])
        run = mlflow_runs.find_run(client, experiment, content.key)
        run = run or mlflow_runs.make_run(client, experiment, content, content.tags)
        mlflow_runs.reopen(client, run, content.tags)
        return str(run.info.run_id)

    def _content(self) -> RunContent:
        task, candidate, network = (self.start[name] for name in ("task", "candidate", "network"))
        return RunContent(
            name=candidate,
            key=self.start["fingerprint"],
            started_ms=self.start["started_ms"],
            ended_ms=self.start["started_ms"],
            params={"architecture": network, **texts(self.start["params"])},
            tags={"convoy.task": task, "convoy.candidate": candidate, "convoy.architecture": network, **self._process},
            curves=curves_of(self.rows),
        )


def _open_or_make_store() -> MlflowClient:
    database = settings.database()
    if database is None or database.exists():
        return mlflow_runs.open_store()
    with locks.hold_deployed(print):  # publish may be making it too
        return mlflow_runs.open_store()
