"""Runs the trials of a study that are missing, prints the progress and at the end the line to type."""

import signal
import time
from collections.abc import Callable

from optuna.study import MaxTrialsCallback, Study
from optuna.trial import FrozenTrial, TrialState

from convoy.core.params import ParamsInvalid
from convoy.core.process import Say
from convoy.operations.tuning.objective import Objective
from convoy.operations.tuning.runs import TuningRuns
from convoy.operations.tuning.space import exp_run, read_space, values
from convoy.operations.tuning.study import FINISHED, HOST, TAKEN, Subject, fail_dead, open_study, queue_again, trials_in
from convoy.training.callbacks import Interrupted, Interruption

FAILURES = 3  # in a row: then it is no accident


class Tuner:
    """One call of `python -m convoy tune`; others may work on the same study."""

    def __init__(self, subject: Subject, trials: int, timeout_s: float | None, say: Say) -> None:
        self.subject, self.trials, self.say = subject, trials, say
        self.deadline_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self.space, self.study, self.objective = read_space(subject.candidate), open_study(subject), Objective(subject)
        self.record = TuningRuns(subject, self.study, self.space, say)
        self._failures = 0
        self._awaited: set[int] = set()

    def run(self) -> int:
        """Tune; gives the exit status: 0, 1 where trials fail, 130 after Ctrl-C, 143 after SIGTERM."""
        self.say(f"{self.subject.name}: {self._progress()} trials finished in {self.subject.place}")
        status = 1
        try:
            with Interruption():
                status = self._run_trials()
        except Interrupted as interruption:
            status = 128 + signal.Signals[interruption.name]
            if self.objective.number is not None:
                queue_again(self.study, self.objective.number)
            self.say("stopped; the same command again goes on with the finished trials")
        finally:
            self.record.bring("KILLED" if status else "FINISHED")
        self._print_best()
        return status

    def _run_trials(self) -> int:
        """Run trials until enough are finished, here or elsewhere. Raises Interrupted, ParamsInvalid."""
        callbacks: list[Callable[[Study, FrozenTrial], None]] = [
            self._print_trial,
            MaxTrialsCallback(self.trials, TAKEN),
        ]
        while len(trials_in(self.study, *FINISHED)) < self.trials and self._left_s() > 0:
            fail_dead(self.study)
            if len(trials_in(self.study, *TAKEN)) >= self.trials:
                self._wait()
                continue
            timeout_s = None if self._left_s() == float("inf") else self._left_s()
            try:
                self.study.optimize(self.objective, timeout=timeout_s, callbacks=callbacks)
            except ParamsInvalid:
                raise
            except Exception as error:  # whatever a network or a library raises; Optuna has printed it
                self._failures += 1
                self.say(f"trial {self.objective.number} failed: {type(error).__name__}: {error}")
                if self._failures == FAILURES:
                    self.say(f"giving up after {FAILURES} failures in a row")
                    return 1
        return 0

    def _left_s(self) -> float:
        return self.deadline_s - time.monotonic()

    def _wait(self) -> None:
        """Wait a moment for the trials of others, and say once for which."""
        for trial in trials_in(self.study, TrialState.RUNNING):
            if HOST in trial.user_attrs and trial.number not in self._awaited:
                self._awaited.add(trial.number)
                self.say(f"waiting for trial {trial.number}, which {trial.user_attrs[HOST]} runs")
        time.sleep(0.5)

    def _print_trial(self, _: Study, trial: FrozenTrial) -> None:
        """Print a line for a trial that has finished, then update MLflow."""
        self._failures = 0
        params = ", ".join(f"{key}={_format_value(value)}" for key, value in values(trial.params, self.space).items())
        took_s = trial.duration.total_seconds() if trial.duration else 0
        value = _format_value(trial.value) if trial.state == TrialState.COMPLETE else trial.state.name.lower()
        best = self._best_trial()
        record = f"best {_format_value(best.value)} of trial {best.number}" if best else "no best yet"
        epochs = f"{len(trial.intermediate_values)} epochs, {took_s:.0f} s"
        self.say(f"trial {trial.number}: {value} after {epochs}; {params}; {record}; {self._progress()}")
        self.record.bring()

    def _progress(self) -> str:
        return f"{len(trials_in(self.study, *FINISHED))} of {self.trials}"

    def _print_best(self) -> None:
        best = self._best_trial()
        if best is None:
            self.say("no trial is finished")
            return
        epochs = f" (found with {self.subject.epochs} epochs)" if self.subject.epochs else ""
        line = exp_run(self.subject.candidate, values(best.params, self.space))
        self.say(
            f"best: {_format_value(best.value)} on validation, trial {best.number}{epochs}. To build with it:\n{line}"
        )

    def _best_trial(self) -> FrozenTrial | None:
        return self.study.best_trial if trials_in(self.study, TrialState.COMPLETE) else None


def _format_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
