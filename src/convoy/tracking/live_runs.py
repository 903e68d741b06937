"""The lines that a training sends -> its run in MLflow, while it goes on; MLflow may come, go and be slow."""

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
LINGER_S = 30  # what may be spent on telling MLflow after the training has ended
_DEATH = {"event": "end", "status": "KILLED", "reason": "its process ended without a word"}

Event = dict[str, Any]


def close_orphaned_runs(client: MlflowClient) -> list[str]:
    """Mark the abandoned runs of this machine KILLED, and give their names; other machines' are theirs to judge."""
    experiments = [found.experiment_id for found in client.search_experiments(filter_string="name LIKE 'convoy-%'")]
    if not experiments:
        return []
    running = f"attributes.status = 'RUNNING' and tags.`{process.HOST}` = '{socket.gethostname()}'"
    dead = [run for run in client.search_runs(experiments, running) if not process.is_alive(run.data.tags)]
    for run in dead:
        reason = f"its process {run.data.tags.get(process.PID)} is no longer there"
        client.set_tag(run.info.run_id, mlflow_runs.END_REASON, reason)
        client.set_terminated(run.info.run_id, "KILLED")
    return [str(run.info.run_name) for run in dead]


def follow(lines: Iterable[str]) -> None:
    """Bring to MLflow what is heard, until the end has been told there; LINGER_S after the last line it is given up.

    What does not arrive is added by `python -m convoy publish`, or, where the training failed, is lost.
    """
    heard: SimpleQueue[Event] = SimpleQueue()
    done = threading.Event()
    # Hearing never waits for MLflow, so the pipe never fills and training loses nothing.
    threading.Thread(target=_listen, args=(lines, heard, done), daemon=True).start()
    try:
        start = heard.get()
        if start["event"] == "start":
            _follow(start, heard)
    finally:
        done.set()


def _follow(start: Event, heard: "SimpleQueue[Event]") -> None:
    lock = Path(f".run/training/{start['task']}-{start['architecture']}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    # After the follower of a training that was killed: it may yet mark the run that this one goes on with.
    with locks.hold_when_free(lock):
        run = _LiveRun(start)
        run.bring()
        while not run.is_told:
            for event in _next(heard, None if run.is_up_to_date else RETRY_S):
                run.hear(event)
            run.bring()


def _listen(lines: Iterable[str], heard: "SimpleQueue[Event]", done: threading.Event) -> None:
    for line in lines:
        with suppress(ValueError):  # the half line of a training that was killed
            heard.put(json.loads(line))
    heard.put(_DEATH)
    if not done.wait(LINGER_S):
        os._exit(1)  # by force: MLflow's client may hang in a request


def _next(heard: "SimpleQueue[Event]", timeout_s: float | None) -> Iterator[Event]:
    """Wait for an event, then give all that have come; none where the time is over."""
    with suppress(Empty):
        yield heard.get(timeout=timeout_s)
        while True:
            yield heard.get_nowait()


class _LiveRun:
    """All that was heard of one training, and how much of it MLflow has."""

    def __init__(self, start: Event) -> None:
        self.start = start
        self.rows: list[Event] = list(start["rows"])
        self.end: Event | None = None
        self.is_up_to_date = False
        self._process = process_tags(start["pid"])
        self._client: MlflowClient | None = None
        self._run_id: str | None = None

    @property
    def is_told(self) -> bool:
        """Whether MLflow has all, the end included."""
        return self.end is not None and self.is_up_to_date

    def hear(self, event: Event) -> None:
        """Note an event; of two ends the first is the true one."""
        if event["event"] == "epoch":
            self.rows.append(event["row"])
        elif self.end is None:
            self.end = event
        else:
            return
        self.is_up_to_date = False

    def bring(self) -> None:
        """Add to MLflow what it lacks; where that fails, say why and leave it to the next time."""
        if self.is_up_to_date:
            return
        try:
            self._bring()
            self.is_up_to_date = True
        except Exception as error:  # MLflow has many, and none may end the following
            self._run_id = None  # another may be right by then
            print(f"MLflow ({settings.tracking_uri()}): {error}", flush=True)

    def _bring(self) -> None:
        if self._client is None:
            client = _open_store()
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
        """The run of this training, made or opened again, with the process that it lives and dies with."""
        experiment = mlflow_runs.experiment_of(client, self.start["task"])
        found = mlflow_runs.find_run(client, experiment, content.key)
        run = found or mlflow_runs.make_run(client, experiment, content, content.tags)
        mlflow_runs.reopen(client, run, content.tags)
        return str(run.info.run_id)

    def _content(self) -> RunContent:
        task, architecture = self.start["task"], self.start["architecture"]
        return RunContent(
            name=f"{task}-{architecture}",
            key=self.start["fingerprint"],
            started_ms=self.start["started_ms"],
            ended_ms=self.start["started_ms"],
            params={"architecture": architecture, **texts(self.start["params"])},
            tags={"convoy.task": task, "convoy.architecture": architecture, **self._process},
            curves=curves_of(self.rows),
        )


def _open_store() -> MlflowClient:
    database = settings.database()
    if database is None or database.exists():
        return mlflow_runs.open_store()
    with locks.hold_deployed(print):  # publish may be about to make it too
        return mlflow_runs.open_store()
