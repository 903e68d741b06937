"""Finished trials of a study -> nested MLflow runs, each found by its key; the next call adds what MLflow lacks."""

import socket
from datetime import datetime

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from convoy.core import locks
from convoy.core.process import Say, process_tags
from convoy.operations.tuning.space import Space, values
from convoy.operations.tuning.study import HOST, Subject
from convoy.tracking.artifacts import StoreMoved
from convoy.tracking.mlflow_runs import END_REASON, RUN_KEY, experiment_of, find_run, open_store, reopen
from convoy.tracking.run_content import curves_of, texts

_RUN_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}


class TuningRuns:
    """Records the study in MLflow and never stops tuning: where MLflow refuses, it says so once."""

    def __init__(self, subject: Subject, study: Study, space: Space, say: Say) -> None:
        self.subject, self.study, self.space, self.say = subject, study, space, say
        self.refused = False
        self._stored_trials: set[int] = set()

    def bring(self, status: str = "RUNNING") -> None:
        """Add the trials of this machine that are missing; `status` is that of the study's own run.

        While another process, such as a publish, holds the store, this is left to the next call; the last one waits.
        """
        if self.refused and status == "RUNNING":
            return  # each attempt may run into a timeout; the last one is made when the study ends
        try:
            with locks.hold_deployed_at_once() if status == "RUNNING" else locks.hold_deployed(self.say) as is_free:
                if is_free is not False:
                    self._record(open_store(), status)
        except (MlflowException, SQLAlchemyError, StoreMoved, OSError) as error:
            if not self.refused:
                reason = str(error).splitlines()[0]
                self.say(f"MLflow refuses ({reason}): tuning goes on; the same command again adds what is missing")
            self.refused = True

    def _record(self, client: MlflowClient, status: str) -> None:
        experiment = experiment_of(client, self.subject.task)
        parent = self._open_parent_run(client, experiment)
        for trial in self.study.get_trials(deepcopy=False):
            is_here = trial.user_attrs.get(HOST) == socket.gethostname()
            if is_here and trial.state in _RUN_STATUS and trial.number not in self._stored_trials:
                self._add_trial(client, experiment, parent, trial)
                self._stored_trials.add(trial.number)
        if status != "RUNNING":
            client.set_terminated(parent, status)

    def _open_parent_run(self, client: MlflowClient, experiment: str) -> str:
        """The study's own run, made or reopened as this process's, so that it is closed if this process is killed."""
        key, process = self.study.user_attrs["key"], process_tags()
        run = find_run(client, experiment, key)
        if run is None:
            run = client.create_run(experiment, tags={RUN_KEY: key, **process}, run_name=f"tune {self.subject.name}")
        reopen(client, run, process)
        wanted = texts(self.subject.params())
        params = [Param(name, text) for name, text in wanted.items() if name not in run.data.params]
        if params:
            client.log_batch(run.info.run_id, params=params)
        return str(run.info.run_id)

    def _add_trial(self, client: MlflowClient, experiment: str, parent: str, trial: FrozenTrial) -> None:
        key = f"{self.study.user_attrs['key']}/{trial.number}"
        run = find_run(client, experiment, key)
        if run is not None:
            if run.info.status != "RUNNING" and END_REASON not in run.data.tags:
                return
            client.delete_run(run.info.run_id)  # the process that wrote it was killed before it was complete
        started_ms, ended_ms = (_unix_ms(moment) for moment in (trial.datetime_start, trial.datetime_complete))
        tags = {RUN_KEY: key, "mlflow.parentRunId": parent, "optuna.state": trial.state.name, **process_tags()}
        run = client.create_run(experiment, started_ms, tags, f"{self.subject.name} trial {trial.number}")
        self._log_values(client, run, trial)
        client.set_terminated(run.info.run_id, _RUN_STATUS[trial.state], ended_ms)

    def _log_values(self, client: MlflowClient, run: Run, trial: FrozenTrial) -> None:
        params = [Param(name, text) for name, text in texts(values(trial.params, self.space)).items()]
        curves = curves_of(trial.user_attrs.get("curves", []))
        metrics = [
            Metric(name, value, run.info.start_time + elapsed_ms, epoch)
            for name, points in curves.items()
            for epoch, elapsed_ms, value in points
        ]
        if trial.value is not None:
            metrics.append(Metric("value", trial.value, _unix_ms(trial.datetime_complete), 0))
        client.log_batch(run.info.run_id, metrics=metrics, params=params)


def _unix_ms(moment: datetime | None) -> int:
    assert moment is not None, "a trial that ended has both times"
    return round(1000 * moment.timestamp())
