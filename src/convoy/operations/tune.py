"""Starts the workers of a study, replaces those that die, tells how it goes, and ends with the line to type."""

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

from convoy.core.process import Say, usable_cores
from convoy.tracking.tuning_runs import TuningRuns
from convoy.training.tuning_space import exp_run, read_space, values
from convoy.training.tuning_study import FINISHED, Subject, counts, fail_dead, is_here, open_study, running

HOPELESS = 3  # as worker.py says
FAILURES = 3  # one after the other, then it is no accident
ENDED_WITHIN_S = 10


class Tuner:
    """One call of `python -m convoy tune`."""

    def __init__(self, subject: Subject, trials: int, workers: int, timeout_s: float | None, say: Say) -> None:
        self.subject, self.trials, self.workers, self.say = subject, trials, workers, say
        self.space = read_space(subject.task, subject.architecture)
        self.study = open_study(subject)
        self.record = TuningRuns(subject, self.study, self.space, say)
        self.deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self.threads = max(1, usable_cores() // workers)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._number = 0  # of the next worker
        self._awaited: set[int] = set()
        self._told = {trial.number for trial in self._ended()}
        self._failures = 0
        self._stopping = threading.Event()

    def run(self) -> int:
        """Tune; gives the exit status: 0, 1 where workers fail, 130 after Ctrl-C or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(
                number, lambda *_: self._stopping.set()
            )  # an exception might come while the storage is locked
        self.say(
            f"{self.subject.name}: {counts(self.study)[0]} of {self.trials} trials finished in {self.subject.place}; "
            f"{self.workers} workers of {self.threads} threads"
        )
        status = 1
        try:
            status = self._work()
        finally:
            self._end_workers()
            fail_dead(self.study)
            self.record.bring("KILLED" if status else "FINISHED")
        self._tell_best()
        return status

    def _work(self) -> int:
        while True:
            fail_dead(self.study)
            late = self.deadline_s is not None and time.monotonic() >= self.deadline_s
            if not late:
                self._start_missing()
            self._tell_ended()
            if not self._processes and (late or counts(self.study)[0] >= self.trials):
                return 0
            if self._stopping.wait(0.5):
                self.say("stopped; the same command again goes on with the finished trials")
                return 130
            if (status := self._reap()) is not None:
                return status

    def _start_missing(self) -> None:
        """Start workers for the trials that nobody else is about to end; say once for which of those it waits."""
        own = [process.pid for process in self._processes.values()]
        others = [
            trial
            for trial in running(self.study)
            if not is_here(trial) or trial.user_attrs.get("process", [0])[0] not in own
        ]
        missing = self.trials - counts(self.study)[0]
        while len(self._processes) < min(self.workers, missing - len(others)):
            self._processes[self._number] = self._start(self._number)
            self._number += 1
        if missing > 0 and not self._processes:
            self._tell_awaited(others)

    def _tell_awaited(self, others: list[FrozenTrial]) -> None:
        for trial in others:
            host = trial.user_attrs.get("host")  # told within a minute, or the trial fails
            if host is not None and trial.number not in self._awaited:
                self._awaited.add(trial.number)
                self.say(f"waiting for trial {trial.number}, which {host} runs")

    def _reap(self) -> int | None:
        """Take note of workers that ended; gives a status where it makes no sense to start others."""
        for number, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            del self._processes[number]
            if process.returncode == 0:
                continue
            self._failures += 1
            said = self._log(number).read_text(errors="replace").strip().splitlines() or ["nothing"]
            self.say(f"worker {number} ended with status {process.returncode}; it said: {said[-1]}")
            if process.returncode == HOPELESS or self._failures >= FAILURES:
                self.say(f"giving up; {self._log(number)} says more")
                return 1
        return None

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        """A worker in a session of its own: Ctrl-C is for this process, which ends them."""
        left_s = None if self.deadline_s is None else max(0.0, self.deadline_s - time.monotonic())
        work = {"subject": asdict(self.subject), "number": number, "trials": self.trials}
        argument = json.dumps({**work, "timeout_s": left_s, "parent": os.getpid()})
        self._log(number).parent.mkdir(parents=True, exist_ok=True)
        with self._log(number).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "convoy.training.tuning_worker", argument],
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads), "CONVOY_FOLLOW": "0"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end_workers(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(ENDED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, number: int) -> Path:
        return Path(".run/tune", self.subject.name, f"worker-{number}.log")

    def _ended(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.FAIL))

    def _tell_ended(self) -> None:
        """A line for each trial that ended since the last time, then MLflow."""
        new = [trial for trial in self._ended() if trial.number not in self._told]
        for trial in new:
            self._told.add(trial.number)
            self._failures = self._failures if trial.state == TrialState.FAIL else 0
            self.say(self._line(trial))
        if new:
            self.record.bring()

    def _line(self, trial: FrozenTrial) -> str:
        drawn = ", ".join(f"{key}={_short(value)}" for key, value in values(trial.params, self.space).items())
        took_s = trial.duration.total_seconds() if trial.duration else 0
        value = _short(trial.value) if trial.state == TrialState.COMPLETE else trial.state.name.lower()
        best = _best(self.study)
        record = f"best {_short(best.value)} of trial {best.number}" if best else "no best yet"
        epochs = f"{len(trial.intermediate_values)} epochs, {took_s:.0f} s"
        done = f"{counts(self.study)[0]} of {self.trials}"
        return f"trial {trial.number}: {value} after {epochs}; {drawn}; {record}; {done}"

    def _tell_best(self) -> None:
        best = _best(self.study)
        if best is None:
            self.say("no trial is finished")
            return
        epochs = f" (found with {self.subject.epochs} epochs)" if self.subject.epochs else ""
        line = exp_run(self.subject.task, self.subject.architecture, values(best.params, self.space))
        self.say(f"best: {_short(best.value)} on validation, trial {best.number}{epochs}. To build with it:\n{line}")


def _best(study: Study) -> FrozenTrial | None:
    """The best of the trials that were trained to their end."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return None
    return study.best_trial


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
