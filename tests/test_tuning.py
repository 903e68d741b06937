"""A study goes on whatever happens to its workers, MLflow shows it, and its best params are a line to type."""

import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from mlflow_store import open_empty_store
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from prepared_splits import write_prepared, write_split
from typer.testing import CliRunner

from convoy.__main__ import app
from convoy.core import locks, paths, tasks
from convoy.core.params import ParamsInvalid
from convoy.kinds.learning import candidates
from convoy.kinds.learning.input_contract import InputContract
from convoy.operations.tuning import tuner as tuner_module
from convoy.operations.tuning.objective import Objective
from convoy.operations.tuning.runs import TuningRuns
from convoy.operations.tuning.space import Choices, exp_run, read_candidate, read_space
from convoy.operations.tuning.study import FINISHED, HOST, StudyChanged, Subject, open_study, sampler_of, trials_in
from convoy.operations.tuning.tuner import Tuner
from convoy.tracking import live_runs, mlflow_runs
from convoy.tracking.mlflow_runs import experiment_of
from convoy.tracking.run_content import texts
from convoy.training.classifier import LearningParams

pytestmark = [
    pytest.mark.torch,
    pytest.mark.mlflow,
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),  # as study.py says; pytest forgets it
]
ROOT = Path.cwd()
FILE = ".run/tune/fashion-lstm.db"
TUNE = [sys.executable, "-m", "convoy", "tune", "--candidate", "fashion-lstm"]


def change_tuning(change: Callable[[dict[str, Any]], object]) -> None:
    content = yaml.safe_load(Path("release.yaml").read_text())
    change(content["tune"])
    Path("release.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two small prepared splits and params to match."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["candidates"]["fashion-lstm"]["batches"]["size"] = 10
    params["candidates"]["fashion-lstm"]["learning"]["epochs"] = 4
    Path("params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(ROOT / "release.yaml", ".")
    units = {"low": 4, "high": 8, "log": False}
    change_tuning(lambda tune: tune["candidates"]["fashion-lstm"].update({"network.units": units}))
    write_prepared(paths.prepared("fashion"), "image", {"train": 400, "validation": 60})
    return tmp_path


def subject(storage: str = FILE) -> Subject:
    return Subject("fashion", "fashion-lstm", "fashion", storage)


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> Any:
    for _ in range(600):
        if found := condition():
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.3)
    raise AssertionError("not within 3 minutes")


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials()]


def running(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that a process runs and has drawn for."""
    return [each for each in trials_in(study, TrialState.RUNNING) if HOST in each.user_attrs and each.params]


def start(*words: str) -> "subprocess.Popen[str]":
    open_empty_store()
    return subprocess.Popen([*TUNE, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def a_trial(state: TrialState, number: float, intermediate: dict[int, float] | None = None) -> FrozenTrial:
    rows = [{"epoch": 0, "train_loss": 0.5, "validation_log_loss": number, "elapsed_s": 1.5}]
    return create_trial(
        state=state,
        value=number if state == TrialState.COMPLETE else None,
        params={"learning.learning_rate": number / 100},
        distributions={"learning.learning_rate": FloatDistribution(0.0008, 0.02, log=True)},
        user_attrs={HOST: socket.gethostname(), "curves": rows},
        intermediate_values=intermediate,
    )


@pytest.mark.process
def test_two_share_a_study_and_a_kill_loses_nothing(place: Path) -> None:
    study = open_study(subject())
    killed, other = start("--trials", "4"), start("--trials", "4")
    done = wait_for(lambda: trials_in(study, TrialState.COMPLETE), other)
    wait_for(lambda: len(running(study)) == 2 or killed.poll() is not None, other)
    killed.kill()
    killed.communicate()
    fall_silent(study)
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 0, said
    found = {trial.number: trial for trial in study.get_trials()}
    assert sum(trial.state in FINISHED for trial in found.values()) >= 4
    assert all(found[trial.number].value == trial.value for trial in done)
    failed = [trial for trial in found.values() if trial.state == TrialState.FAIL]
    for victim in failed:
        assert [again for again in found.values() if again.number > victim.number and again.params == victim.params]
    assert TrialState.RUNNING not in states(study)
    assert "dvc exp run -S candidates.fashion-lstm.learning.learning_rate=" in said.splitlines()[-1]
    runs = open_client_runs()
    ran = [trial for trial in found.values() if trial.state != TrialState.WAITING]  # the retry may come too late
    assert len(runs["children"]) == len(ran) and all(run.data.metrics for run in runs["complete"])


def fall_silent(study: optuna.Study) -> None:
    """Let every heartbeat be an hour old: that of a process which lives comes again before its trial is judged."""
    with sqlite3.connect(FILE, timeout=60) as database:
        database.execute("update trial_heartbeats set heartbeat = datetime('now', '-1 hour')")
    database.close()


def open_client_runs() -> dict[str, list]:
    from convoy.tracking.mlflow_runs import open_store

    client = open_store()
    runs = list(client.search_runs([experiment_of(client, "fashion")]))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    complete = [run for run in children if run.data.tags["optuna.state"] == "COMPLETE"]
    return {"parents": parents, "children": children, "complete": complete}


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_tuning_and_keeps_the_finished(place: Path, number: signal.Signals) -> None:
    study = open_study(subject())
    tuning = start("--trials", "50")
    wait_for(lambda: trials_in(study, TrialState.COMPLETE) and running(study), tuning)
    tuning.send_signal(number)
    said, _ = tuning.communicate(timeout=60)
    assert tuning.returncode == 128 + number and "the same command again goes on" in said, said
    assert TrialState.COMPLETE in states(study) and TrialState.RUNNING not in states(study)
    failed = trials_in(study, TrialState.FAIL)
    assert [each.params for each in trials_in(study, TrialState.WAITING)] == [each.params for each in failed]
    assert open_client_runs()["parents"][0].info.status == "KILLED"


class QuickObjective:
    """A trial without the training; it fails where `failing` says so of its number."""

    number: int | None = None

    def __init__(self, failing: Callable[[int], bool] = lambda number: False) -> None:
        self.failing = failing

    def __call__(self, trial: optuna.Trial) -> float:
        self.number = trial.number
        trial.set_user_attr(HOST, socket.gethostname())
        trial.study.sampler = sampler_of(trial)
        drawn = trial.suggest_float("learning.learning_rate", 0.0008, 0.02, log=True)
        if self.failing(trial.number):
            raise RuntimeError("out of memory")
        return float(drawn)


@pytest.fixture
def tune(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Tunes with a QuickObjective; gives the exit status and what was said."""

    def run(
        trials: int, failing: Callable[[int], bool] = lambda number: False, meanwhile: Callable[[], Any] | None = None
    ) -> tuple[int, list[str]]:
        open_empty_store()
        said: list[str] = []
        monkeypatch.setattr(tuner_module, "Objective", lambda _: QuickObjective(failing))
        monkeypatch.setattr(tuner_module.time, "sleep", lambda _: meanwhile() if meanwhile else None)
        return Tuner(subject(), trials, None, said.append).run(), said

    return run


def ask(study: optuna.Study, ago: str = "0 seconds") -> optuna.Trial:
    """A running trial, whose process has given a sign so long ago."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        trial = study.ask()
    trial.suggest_float("learning.learning_rate", 0.0008, 0.02, log=True)
    trial.set_user_attr(HOST, "another.example.org")
    study._storage.record_heartbeat(trial._trial_id)
    with sqlite3.connect(FILE) as database:
        database.execute("update trial_heartbeats set heartbeat = datetime('now', ?)", (f"-{ago}",))
    database.close()
    return trial


def test_the_last_trial_of_another_is_waited_for(tune: Callable[..., tuple[int, list[str]]]) -> None:
    study = open_study(subject())
    study.add_trial(a_trial(TrialState.COMPLETE, 0.4))
    trial, waits = ask(study), iter(range(100))
    status, said = tune(2, meanwhile=lambda: study.tell(trial, 0.3) if next(waits) == 5 else None)
    assert status == 0 and states(study) == [TrialState.COMPLETE] * 2
    assert [line for line in said if line.startswith("waiting")] == [
        "waiting for trial 1, which another.example.org runs"
    ]


def test_a_trial_without_heartbeat_is_tried_once_more(tune: Callable[..., tuple[int, list[str]]]) -> None:
    study = open_study(subject())
    lost = ask(study, ago="1 hour")
    assert tune(1)[0] == 0
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE] and study.trials[1].params == lost.params
    again = ask(study, ago="1 hour")
    study._storage.set_trial_system_attr(again._trial_id, "retry_history", [0])
    assert tune(2)[0] == 0
    retried = [each for each in study.trials if each.params == again.params]
    assert len(retried) == 1, "it is tried twice at most"


def test_a_trial_before_its_first_heartbeat_is_failed(tune: Callable[..., tuple[int, list[str]]]) -> None:
    study = open_study(subject())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        study.ask()  # as by a process that was killed then
    with sqlite3.connect(FILE) as database:
        database.execute("update trials set datetime_start = '2026-01-01 00:00:00.000000'")
    database.close()
    assert tune(1)[0] == 0 and states(study) == [TrialState.FAIL, TrialState.COMPLETE]


def test_three_failures_in_a_row_end_tuning(tune: Callable[..., tuple[int, list[str]]]) -> None:
    status, said = tune(9, lambda number: number in (1, 2, 4, 5, 6))
    assert status == 1 and states(open_study(subject())).count(TrialState.COMPLETE) == 2
    assert sum("failed: RuntimeError: out of memory" in line for line in said) == 5
    assert any(line.startswith("giving up after 3 failures") for line in said)


SHARING = """
import socket, sys
from optuna.study import MaxTrialsCallback
from convoy.operations.tuning.study import HOST, TAKEN, Subject, open_study, sampler_of

def objective(trial):
    trial.set_user_attr(HOST, socket.gethostname())
    trial.study.sampler = sampler_of(trial)
    for epoch in range(3):
        trial.report(0.5, epoch)
    return trial.suggest_float("x", 0, 1)

study = open_study(Subject("fashion", "fashion-lstm", "fashion", sys.argv[1]))
study.optimize(objective, callbacks=[MaxTrialsCallback(40, TAKEN)])
"""


@pytest.mark.process
def test_four_processes_make_and_share_one_file(place: Path) -> None:
    four = [subprocess.Popen([sys.executable, "-c", SHARING, FILE]) for _ in range(4)]
    assert [process.wait(120) for process in four] == [0] * 4
    trials = open_study(subject()).trials
    assert {each.state for each in trials} == {TrialState.COMPLETE} and 40 <= len(trials) < 44
    assert len({each.params["x"] for each in trials}) == len(trials), "no two drew the same"


def test_a_study_refuses_other_params_and_other_data(place: Path) -> None:
    open_study(subject())
    open_study(replace(subject(), epochs=1))  # a study of its own
    write_split("image", paths.split_file("fashion", "validation"), 63)
    with pytest.raises(StudyChanged, match="another --storage"):
        open_study(subject())


def test_one_process_draws_the_same_again(place: Path) -> None:
    draws = []
    for _ in range(2):
        study = open_study(subject())
        study.optimize(QuickObjective(), n_trials=3)
        draws.append([trial.params["learning.learning_rate"] for trial in study.trials])
        Path(FILE).unlink()
    assert draws[0] == draws[1] and len(set(draws[0])) == 3


def trial_after(figure: float) -> FrozenTrial:
    """A whole trial, after two that had this log loss in each epoch."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["trainer"] |= {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    change_tuning(lambda tune: tune.update({"random_trials": 2, "prune_after_epochs": 2, "metric": "log_loss"}))
    study = open_study(subject())
    for _ in range(2):
        study.add_trial(a_trial(TrialState.COMPLETE, figure, dict.fromkeys(range(4), figure)))
    trainer = Objective(subject()).trainer
    assert (trainer.devices, trainer.num_nodes, trainer.strategy) == (1, 1, "auto"), "else this test starts once more"
    study.optimize(Objective(subject()), n_trials=1)
    return study.trials[-1]


def test_a_trial_is_one_process_and_is_pruned_where_it_is_behind_the_others(place: Path) -> None:
    behind = trial_after(0.1)
    assert behind.state == TrialState.PRUNED and list(behind.intermediate_values) == [0, 1]
    assert [row["epoch"] for row in behind.user_attrs["curves"]] == [0, 1]


def test_a_trial_that_is_before_the_others_is_trained_to_its_end(place: Path) -> None:
    before = trial_after(1.9)
    assert before.state == TrialState.COMPLETE and before.value == min(before.intermediate_values.values()) < 1.9
    assert list(before.intermediate_values) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgresql+psycopg2://u:secret@db/tune", "needs psycopg2; `pip install 'psycopg2-binary'` brings it"),
        ("postgresql+psycopg://u:secret@db/tune", "needs psycopg; `pip install 'psycopg[binary]'` brings it"),
        ("nosuch://u:secret@db/tune", "--storage takes a SQLite file or the URL of a database that answers"),
        ("sqlite:////nowhere/db/tune", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_a_line(
    place: Path, url: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)  # wherever they are installed
    done = CliRunner().invoke(app, ["tune", "--candidate", "fashion-lstm", "--storage", url])
    assert done.exit_code == 1 and remedy in done.output and done.output.count("\n") == 1
    assert "db/tune" in done.output and "secret" not in done.output


def test_trials_are_nested_runs_with_curves_and_come_once(place: Path) -> None:
    client, study, said = open_empty_store(), open_study(subject()), []
    for state, number in [(TrialState.COMPLETE, 0.4), (TrialState.PRUNED, 0.6), (TrialState.FAIL, 0.8)]:
        study.add_trial(a_trial(state, number))
    for status in ("RUNNING", "FINISHED"):
        TuningRuns(subject(), study, read_space("fashion-lstm"), said.append).bring(status)
    runs = open_client_runs()
    assert not said and runs["parents"][0].info.status == "FINISHED"
    by_state = {run.data.tags["optuna.state"]: run for run in runs["children"]}
    assert {state: run.info.status for state, run in by_state.items()} == {
        "COMPLETE": "FINISHED",
        "PRUNED": "KILLED",
        "FAIL": "FAILED",
    }
    assert len(runs["children"]) == 3 and by_state["COMPLETE"].data.params == {"learning.learning_rate": "0.004"}
    points = client.get_metric_history(by_state["PRUNED"].info.run_id, "curves/validation_log_loss")
    assert [(point.step, point.value) for point in points] == [(0, 0.6)]


KILLED_IN_RECORD = """
import os, sys
from convoy.tracking import settings as mlflow_settings
mlflow_settings.apply()
from convoy.operations.tuning import runs as record
from convoy.operations.tuning.space import read_space
from convoy.operations.tuning.study import open_study
from test_tuning import subject
setattr(record.MlflowClient, sys.argv[1], lambda *_, **__: os._exit(9))
record.TuningRuns(subject(), open_study(subject()), read_space("fashion-lstm"), print).bring()
"""


@pytest.mark.process
def test_runs_of_a_killed_tuning_are_closed_and_the_next_completes_them(place: Path) -> None:
    client, study, said = open_empty_store(), open_study(subject()), []
    study.add_trial(a_trial(TrialState.COMPLETE, 0.4))
    path = os.pathsep.join(map(str, (Path(__file__).parent, *sys.path)))
    for step, left in [
        ("log_batch", {"tune fashion-lstm"}),
        ("set_terminated", {"tune fashion-lstm", "fashion-lstm trial 0"}),
    ]:
        done = subprocess.run([sys.executable, "-c", KILLED_IN_RECORD, step], env={**os.environ, "PYTHONPATH": path})
        assert done.returncode == 9 and set(live_runs.close_orphaned_runs(client)) == left
    record = TuningRuns(subject(), study, read_space("fashion-lstm"), said.append)
    record.bring()
    (parent,) = open_client_runs()["parents"]
    assert parent.info.status == "RUNNING" and parent.data.params == texts(subject().params())
    assert live_runs.close_orphaned_runs(client) == [], "its process lives"
    record.bring("FINISHED")
    runs = open_client_runs()
    assert not said and [run.info.status for run in (*runs["parents"], *runs["children"])] == ["FINISHED"] * 2
    assert all(mlflow_runs.END_REASON not in run.data.tags for run in (*runs["parents"], *runs["children"]))
    assert runs["children"][0].data.metrics["curves/train_loss"] == 0.5


def test_tuning_goes_on_behind_a_publish_and_brings_its_trials_later(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_empty_store()
    study, said = open_study(subject()), []
    record = TuningRuns(subject(), study, read_space("fashion-lstm"), said.append)
    study.add_trial(a_trial(TrialState.COMPLETE, 0.4))
    with locks.hold_deployed(said.append):  # a lock of another opening of the file, as of another process
        began = time.monotonic()
        record.bring()
        assert time.monotonic() - began < 0.5 and not said
        ending = threading.Thread(target=record.bring, args=("FINISHED",))
        ending.start()
        ending.join(1)
        assert ending.is_alive() and len(said) == 1 and "waiting for another publish" in said[0]
    ending.join(60)
    assert len(open_client_runs()["complete"]) == 1 and len(said) == 1


def test_an_mlflow_that_refuses_is_told_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, said = open_study(subject()), []
    study.add_trial(a_trial(TrialState.COMPLETE, 0.4))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record = TuningRuns(subject(), study, read_space("fashion-lstm"), said.append)
    for status in ("RUNNING", "RUNNING", "FINISHED"):
        record.bring(status)
    assert len(said) == 1 and "tuning goes on" in said[0]


TUNED = yaml.safe_load((ROOT / "release.yaml").read_text())["tune"]["candidates"]
DIMENSIONS = {"image": {"size_px": 28, "channels": 1}, "text": {"vocabulary": 50, "pad_id": 0}}


def test_what_is_tuned_are_candidates() -> None:
    assert TUNED and set(TUNED) <= set(tasks.read().candidates)


@pytest.mark.parametrize("name", TUNED)
def test_both_ends_of_every_range_are_params_that_training_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed line is read as DVC reads it."""
    space = read_space(name)
    for file in ("params.yaml", "release.yaml"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    candidate = tasks.read().candidate(name)
    data: Any = SimpleNamespace(dimensions=DIMENSIONS[candidate.kind], names=("a", "b"))
    contract = InputContract(SimpleNamespace(model_dump=lambda mode: {}), {}, False)
    for end in (0, -1):
        drawn = {
            key: each.choices[end] if isinstance(each, Choices) else (each.low, each.high)[end]
            for key, each in space.items()
        }
        words = shlex.split(exp_run(name, drawn))
        assert words[:3] == ["dvc", "exp", "run"]
        apply_overrides("params.yaml", words[4::2])
        found = read_candidate(name)
        LearningParams.model_validate(found["learning"])
        batches = candidates.batch_model(candidate.kind).model_validate(found["batches"])
        candidates.build(candidates.describe(candidate, found["network"], contract, data, {}))
        for key, value in drawn.items():
            section, number = key.split(".")
            assert found[section][number] == value and (section != "batches" or getattr(batches, number) == value)


def test_a_key_that_the_candidate_lacks_is_named(place: Path) -> None:
    change_tuning(lambda tune: tune["candidates"]["fashion-lstm"].update({"network.unist": {"choices": [1, 2]}}))
    with pytest.raises(
        ParamsInvalid, match=r"tune\.candidates\.fashion-lstm names network\.unist, params\.yaml has no such key"
    ):
        read_space("fashion-lstm")
