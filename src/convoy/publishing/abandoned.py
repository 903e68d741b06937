"""Runs that MLflow shows as running though their training, on this machine, is dead -> KILLED."""

import socket

import psutil
from mlflow import MlflowClient

from convoy.layout import TASKS
from convoy.publishing import tracking

_PID, _HOST, _BORN = "convoy.pid", "convoy.host", "convoy.process_started"
_SAME_START_S = 5  # psutil reckons the start of a process from the clock, which may have been set since


def process_tags(pid: int) -> dict[str, str]:
    """What tells a process from all others: host, number, and when it began, since numbers are used again."""
    return {_HOST: socket.gethostname(), _PID: str(pid), _BORN: f"{_born_s(pid):.1f}"}


def close(client: MlflowClient) -> list[str]:
    """Mark the abandoned runs of this machine KILLED, and give their names; other machines' are theirs to judge."""
    found = [client.get_experiment_by_name(tracking.experiment_name(task)) for task in TASKS]
    experiments = [experiment.experiment_id for experiment in found if experiment is not None]
    if not experiments:
        return []
    running = f"attributes.status = 'RUNNING' and tags.`{_HOST}` = '{socket.gethostname()}'"
    dead = [run for run in client.search_runs(experiments, running) if not _is_alive(run.data.tags)]
    for run in dead:
        reason = f"its process {run.data.tags.get(_PID)} is no longer there"
        client.set_tag(run.info.run_id, tracking.END_REASON, reason)
        client.set_terminated(run.info.run_id, "KILLED")
    return [str(run.info.run_name) for run in dead]


def _is_alive(tags: dict[str, str]) -> bool:
    try:
        return abs(_born_s(int(tags[_PID])) - float(tags[_BORN])) < _SAME_START_S
    except (KeyError, ValueError):
        return False


def _born_s(pid: int) -> float:
    """When a process began, in seconds of the clock; 0 for one that has ended."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0
