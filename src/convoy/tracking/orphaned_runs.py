"""Runs that MLflow shows as running though the process that writes them, on this machine, is dead -> KILLED."""

import socket

from mlflow import MlflowClient

from convoy.core import process_identity
from convoy.tracking import mlflow_runs


def close(client: MlflowClient) -> list[str]:
    """Mark the abandoned runs of this machine KILLED, and give their names; other machines' are theirs to judge."""
    experiments = [found.experiment_id for found in client.search_experiments(filter_string="name LIKE 'convoy-%'")]
    if not experiments:
        return []
    running = f"attributes.status = 'RUNNING' and tags.`{process_identity.HOST}` = '{socket.gethostname()}'"
    dead = [run for run in client.search_runs(experiments, running) if not process_identity.is_alive(run.data.tags)]
    for run in dead:
        reason = f"its process {run.data.tags.get(process_identity.PID)} is no longer there"
        client.set_tag(run.info.run_id, mlflow_runs.END_REASON, reason)
        client.set_terminated(run.info.run_id, "KILLED")
    return [str(run.info.run_name) for run in dead]
