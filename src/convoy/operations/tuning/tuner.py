"""Starts the workers of a study, replaces those that die, prints the progress and at the end the line to type."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from convoy.core import children
from convoy.core.process import Say, usable_cores
from convoy.operations.tuning.runs import TuningRuns
from convoy.operations.tuning.space import exp_run, read_space, values
from convoy.operations.tuning.study import FINISHED, Subject, counts, fail_dead, is_here, open_study, running

HOPELESS = 3  # the exit status in worker.py
FAILURES = 3  # in a row: then it is no accident
ENDED_WITHIN_S = 10


class Tuner:
    """One call of `python -m convoy tune`."""

    def __init__(self, subject: Subject, trials: int, workers: int, timeout_s: float | None, say: Say) -> None:
        self.subject, self.trials, self.workers, self.say = subject, trials, workers, say
        self.space = read_space(subject.candidate)
        self.study = open_study(subject)
        self.record = TuningRuns(subject, self.study, self.space, say)
        self.deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self.threads = max(1, usable_cores() // workers)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._number = 0  # of the next worker
        self._awaited: set[int] = set()
        self._reported = {trial.number for trial in self._ended_trials()}
        self._failures = 0
        self._stopping = threading.Event()

    def run(self) -> int:
        """Tune; gives the exit status: 0, 1 where workers fail, 130 after Ctrl-C or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # No exception: it might come while the storage is locked.
            signal.signal(number, lambda *_: self._stopping.set())
        self.say(
            f"{self.subject.name}: {counts(self.study)[0]} of {self.trials} trials finished in {self.subject.place}; "
            f"{self.workers} workers of {self.threads} threads"
        )
        status = 1
        try:
            status = self._run_workers()
        finally:
            children.end(list(self._processes.values()), ENDED_WITHIN_S)
            fail_dead(self.study)
            self.record.bring("KILLED" if status else "FINISHED")
        self._print_best()
        return status

    def _run_workers(self) -> int:
        while True:
            fail_dead(self.study)
            is_late = self.deadline_s is not None and time.monotonic() >= self.deadline_s
            if not is_late:
                self._start_missing()
            self._print_ended()
            if not self._processes and (is_late or counts(self.study)[0] >= self.trials):
                return 0
            if self._stopping.wait(0.5):
                self.say("stopped; the same command again goes on with the finished trials")
                return 130
            if (status := self._reap()) is not None:
                return status

    def _start_missing(self) -> None:
        """Start workers for the trials that no other process runs; say once for which trials it waits."""
        own = [process.pid for process in self._processes.values()]
        foreign = [
            trial
            for trial in running(self.study)
            if not is_here(trial) or trial.user_attrs.get("process", [0])[0] not in own
        ]
        missing = self.trials - counts(self.study)[0]
        while len(self._processes) < min(self.workers, missing - len(foreign)):
            self._processes[self._number] = self._start(self._number)
            self._number += 1
        if missing > 0 and not self._processes:
            self._print_awaited(foreign)

    def _print_awaited(self, trials: list[FrozenTrial]) -> None:
        for trial in trials:
            host = trial.user_attrs.get("host")  # set within a minute, or the trial fails
            if host is not None and trial.number not in self._awaited:
                self._awaited.add(trial.number)
                self.say(f"waiting for trial {trial.number}, which {host} runs")

    def _reap(self) -> int | None:
        """Remove workers that ended; gives an exit status where starting others makes no sense."""
        for number, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            del self._processes[number]
            if process.returncode == 0:
                continue
            self._failures += 1
            output = self._log_path(number).read_text(errors="replace").strip().splitlines() or ["nothing"]
            self.say(f"worker {number} ended with status {process.returncode}; it said: {output[-1]}")
            if process.returncode == HOPELESS or self._failures >= FAILURES:
                self.say(f"giving up; {self._log_path(number)} says more")
                return 1
        return None

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        """Start a worker in a session of its own: Ctrl-C reaches only this process, which ends the workers."""
        left_s = None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())
        work = {"subject": asdict(self.subject), "number": number, "trials": self.trials}
        argument = json.dumps({**work, "timeout_s": left_s, "parent": os.getpid()})
        self._log_path(number).parent.mkdir(parents=True, exist_ok=True)
        with self._log_path(number).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "convoy.operations.tuning.worker", argument],
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads), "CONVOY_FOLLOW": "0"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _log_path(self, number: int) -> Path:
        return Path(".run/tune", self.subject.name, f"worker-{number}.log")

    def _ended_trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.FAIL))

    def _print_ended(self) -> None:
        """Print a line for each trial that ended since the last call, then update MLflow."""
        new = [trial for trial in self._ended_trials() if trial.number not in self._reported]
        for trial in new:
            self._reported.add(trial.number)
            self._failures = self._failures if trial.state == TrialState.FAIL else 0
            self.say(self._format_trial(trial))
        if new:
            self.record.bring()

    def _format_trial(self, trial: FrozenTrial) -> str:
        params = ", ".join(f"{key}={_format_value(value)}" for key, value in values(trial.params, self.space).items())
        took_s = trial.duration.total_seconds() if trial.duration else 0
        value = _format_value(trial.value) if trial.state == TrialState.COMPLETE else trial.state.name.lower()
        best = _best_trial(self.study)
        record = f"best {_format_value(best.value)} of trial {best.number}" if best else "no best yet"
        epochs = f"{len(trial.intermediate_values)} epochs, {took_s:.0f} s"
        done = f"{counts(self.study)[0]} of {self.trials}"
        return f"trial {trial.number}: {value} after {epochs}; {params}; {record}; {done}"

    def _print_best(self) -> None:
        best = _best_trial(self.study)
        if best is None:
            self.say("no trial is finished")
            return
        epochs = f" (found with {self.subject.epochs} epochs)" if self.subject.epochs else ""
        line = exp_run(self.subject.candidate, values(best.params, self.space))
        self.say(
            f"best: {_format_value(best.value)} on validation, trial {best.number}{epochs}. To build with it:\n{line}"
        )


def _best_trial(study: Study) -> FrozenTrial | None:
    """The best completed trial."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return None
    return study.best_trial


def _format_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
