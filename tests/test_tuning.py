"""A study goes on whatever happens to its workers, MLflow shows it, and its best params are a line to type."""

import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import psutil
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
from convoy.operations.tuning import runs as record_module
from convoy.operations.tuning import study as studies
from convoy.operations.tuning import worker as tuning_worker
from convoy.operations.tuning.runs import TuningRuns
from convoy.operations.tuning.space import Choices, exp_run, read_candidate, read_space
from convoy.operations.tuning.study import StudyChanged, Subject, counts, fail_dead, open_study
from convoy.operations.tuning.tuner import Tuner
from convoy.tracking import live_runs, mlflow_runs
from convoy.tracking.mlflow_runs import experiment_of
from convoy.tracking.run_content import texts
from convoy.training.classifier import LearningParams

pytestmark = [pytest.mark.torch, pytest.mark.mlflow]
ROOT = Path.cwd()
JOURNAL = ".run/tune/fashion-lstm.journal"
DATABASE = "sqlite:///study.db"
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


def subject(storage: str = JOURNAL) -> Subject:
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


def signed(study: optuna.Study) -> list[FrozenTrial]:
    return [each for each in study.get_trials(states=[TrialState.RUNNING]) if "process" in each.user_attrs]


def start(*words: str) -> "subprocess.Popen[str]":
    open_empty_store()
    return subprocess.Popen([*TUNE, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def a_trial(state: TrialState, number: float, intermediate: dict[int, float] | None = None) -> FrozenTrial:
    host, process = studies.socket.gethostname(), psutil.Process()
    rows = [{"epoch": 0, "train_loss": 0.5, "validation_log_loss": number, "elapsed_s": 1.5}]
    return create_trial(
        state=state,
        value=number if state == TrialState.COMPLETE else None,
        params={"learning.learning_rate": number / 100},
        distributions={"learning.learning_rate": FloatDistribution(0.0008, 0.02, log=True)},
        user_attrs={"host": host, "process": [process.pid, process.create_time()], "curves": rows},
        intermediate_values=intermediate,
    )


@pytest.mark.process
def test_killing_a_worker_loses_no_finished_trial_and_the_study_goes_on(place: Path) -> None:
    study = open_study(subject())
    tuning = start("--trials", "3", "--workers", "2")
    done = wait_for(lambda: study.get_trials(states=[TrialState.COMPLETE]), tuning)
    victim = wait_for(lambda: signed(study), tuning)[0]
    os.kill(victim.user_attrs["process"][0], signal.SIGKILL)
    said, _ = tuning.communicate(timeout=120)
    assert tuning.returncode == 0, said
    found = {trial.number: trial for trial in study.get_trials()}
    assert sum(trial.state in studies.FINISHED for trial in found.values()) >= 3
    assert all(found[trial.number].value == trial.value for trial in done)
    assert found[victim.number].state == TrialState.FAIL and "status -9" in said
    assert [trial for number, trial in found.items() if number > victim.number and trial.params == victim.params]
    assert "dvc exp run -S candidates.fashion-lstm.learning.learning_rate=" in said.splitlines()[-1]
    runs = open_client_runs()
    ran = [trial for trial in found.values() if trial.state != TrialState.WAITING]  # the retry may come too late
    assert len(runs["children"]) == len(ran) and all(run.data.metrics for run in runs["complete"])


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
def test_ctrl_c_ends_the_workers_and_keeps_what_is_finished(place: Path) -> None:
    study = open_study(subject())
    tuning = start("--trials", "50")
    wait_for(lambda: TrialState.COMPLETE in states(study) and TrialState.RUNNING in states(study), tuning)
    workers = psutil.Process(tuning.pid).children(recursive=True)
    tuning.send_signal(signal.SIGINT)
    said, _ = tuning.communicate(timeout=60)
    assert tuning.returncode == 130 and "the same command again goes on" in said, said
    assert workers and not psutil.wait_procs(workers, timeout=5)[1]
    assert TrialState.COMPLETE in states(study) and TrialState.RUNNING not in states(study)
    assert open_client_runs()["parents"][0].info.status == "KILLED"


def test_the_trial_of_a_dead_worker_is_failed_and_tried_once_more(place: Path) -> None:
    study = open_study(subject())
    for again in range(3):
        trial = study.ask()
        trial.suggest_float("learning.learning_rate", 0.0008, 0.02, log=True)
        studies.record_worker(trial)
        fail_dead(study)
        assert study.trials[again].state == TrialState.RUNNING, "its worker lives"
        trial.set_user_attr("process", [trial.user_attrs["process"][0], 0.0])  # the number is another's by now
        fail_dead(study)
    assert [trial.state for trial in study.trials[:3]] == [TrialState.FAIL] * 3
    params = [trial.params for trial in study.trials]
    assert params[0] == params[1] != params[2]


class QuickTuner(Tuner):
    """A Tuner whose workers end as soon as they have done what `work` does, and which waits by calling `meanwhile`."""

    def __init__(self, storage: str, trials: int, work: Callable[[], None], meanwhile: Callable[[], Any]) -> None:
        open_empty_store()
        self.said: list[str] = []
        super().__init__(subject(storage), trials, 2, None, self.said.append)
        self.work, self.started = work, 0
        self.meanwhile, self._stopping.wait = meanwhile, self._wait  # type: ignore[method-assign]

    def _wait(self, timeout_s: float | None = None) -> bool:
        self.meanwhile()
        return False

    def _start(self, number: int) -> Any:
        self.started += 1
        assert self.started <= 3, "it starts workers for ever"
        self.work()
        return SimpleNamespace(poll=lambda: 0, returncode=0, pid=0, terminate=lambda: None, wait=lambda _: 0)

    def run(self) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signal, "signal", lambda *_: None)
            return super().run()


def no_work() -> None:
    """As a worker does that finds all trials finished or running."""


def ask(study: optuna.Study, host: str) -> optuna.Trial:
    """A running trial of this process, or of what says to be another machine."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # heartbeat() below gives it
        trial = study.ask()
    trial.suggest_float("learning.learning_rate", 0.0008, 0.02, log=True)
    studies.record_worker(trial)
    trial.set_user_attr("host", host)
    return trial


def heartbeat(study: optuna.Study, trial: optuna.Trial, ago: str = "0 seconds") -> None:
    study._storage.record_heartbeat(trial._trial_id)
    with sqlite3.connect("study.db") as database:
        database.execute("update trial_heartbeats set heartbeat = datetime('now', ?)", (f"-{ago}",))
    database.close()


@pytest.mark.parametrize(("storage", "host"), [(JOURNAL, socket.gethostname()), (DATABASE, "another.example.org")])
def test_the_last_trial_where_another_runs_it_is_waited_for(place: Path, storage: str, host: str) -> None:
    study = open_study(subject(storage))
    study.add_trial(a_trial(TrialState.COMPLETE, 0.4))
    trial, waits = ask(study, host), iter(range(100))
    if storage == DATABASE:
        heartbeat(study, trial)
    tuner = QuickTuner(storage, 2, no_work, lambda: study.tell(trial, 0.3) if next(waits) == 5 else None)
    assert tuner.run() == 0 and tuner.started == 0 and states(study) == [TrialState.COMPLETE] * 2
    assert [line for line in tuner.said if line.startswith("waiting")] == [f"waiting for trial 1, which {host} runs"]


def test_a_worker_is_started_beside_ones_own_that_runs(place: Path) -> None:
    study = open_study(subject())
    trial, waits = ask(study, socket.gethostname()), iter(range(5))

    def work() -> None:
        study.add_trial(a_trial(TrialState.COMPLETE, 0.4))
        study.tell(trial, 0.3)

    tuner = QuickTuner(JOURNAL, 2, work, lambda: next(waits))
    own = SimpleNamespace(poll=lambda: 0 if tuner.started else None, returncode=0, pid=os.getpid())
    tuner._processes[-1] = own  # type: ignore[assignment]
    assert tuner.run() == 0 and tuner.started == 1 and states(study) == [TrialState.COMPLETE] * 2


def quick_worker(storage: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """All of a worker but the training."""

    def objective(trial: optuna.Trial) -> float:
        assert trial.user_attrs == {}, "those of a dead worker: this one would be judged by them"
        studies.record_worker(trial)
        return trial.suggest_float("learning.learning_rate", 0.0008, 0.02, log=True)

    monkeypatch.setattr(tuning_worker, "Objective", lambda _: objective)
    return lambda: tuning_worker.main(subject(storage), 0, 1, None, os.getppid())


def test_a_trial_that_another_host_left_in_a_file_holds_nobody_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = open_study(subject())
    ask(study, "the container before its restart")
    assert counts(study) == (0, 0)
    tuner = QuickTuner(JOURNAL, 1, quick_worker(JOURNAL, monkeypatch), no_work)
    assert tuner.run() == 0 and tuner.started == 1 and counts(study) == (1, 0)


def test_a_trial_of_a_database_whose_heartbeat_stays_away_is_tried_once_more(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = open_study(subject(DATABASE))
    lost = ask(study, "a machine that is gone")
    heartbeat(study, lost, ago="1 hour")
    tuner = QuickTuner(DATABASE, 1, quick_worker(DATABASE, monkeypatch), no_work)
    assert tuner.run() == 0 and tuner.started == 1
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE] and study.trials[1].params == lost.params


def test_a_study_refuses_other_params_and_other_data(place: Path) -> None:
    open_study(subject())
    open_study(replace(subject(), epochs=1))  # a study of its own
    write_split("image", paths.split_file("fashion", "validation"), 63)
    with pytest.raises(StudyChanged, match="another --storage"):
        open_study(subject())


def test_a_later_start_draws_other_params(place: Path) -> None:
    rates = []
    for number in (0, 0, 1):
        trial = open_study(subject(), number).ask()
        rates.append(trial.suggest_float("learning.learning_rate", 0.0008, 0.02, log=True))
    assert len(set(rates)) == 3


def first_draw(storage: str, host: str, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        trial = open_study(subject(storage)).ask()
    drawn = trial.suggest_float("learning.learning_rate", 0.0008, 0.02, log=True)
    Path(storage.removeprefix("sqlite:///")).unlink()
    return drawn


def test_machines_that_share_a_database_draw_other_params_and_each_the_same_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = [first_draw(DATABASE, host, monkeypatch) for host in ("one", "two", "one")]
    assert draws[0] == draws[2] != draws[1]
    assert first_draw(JOURNAL, "one", monkeypatch) == first_draw(JOURNAL, "two", monkeypatch)


def trial_after(figure: float) -> FrozenTrial:
    """A trial by a whole worker, in a database, after two that had this log loss in each epoch."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["trainer"] |= {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    change_tuning(lambda tune: tune.update({"random_trials": 2, "prune_after_epochs": 2, "metric": "log_loss"}))
    study = open_study(subject(DATABASE))
    for _ in range(2):
        study.add_trial(a_trial(TrialState.COMPLETE, figure, dict.fromkeys(range(4), figure)))
    trainer = tuning_worker.Objective(subject(DATABASE)).trainer
    assert (trainer.devices, trainer.num_nodes, trainer.strategy) == (1, 1, "auto"), "else this test starts once more"
    tuning_worker.main(subject(DATABASE), 0, 3, None, os.getppid())
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
        ("nosuch://u:secret@db/tune", "--storage takes a file or the URL of a database that answers"),
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
    monkeypatch.setattr(record_module, "LAST_WAIT_S", 1.0)
    record = TuningRuns(subject(), study, read_space("fashion-lstm"), said.append)
    study.add_trial(a_trial(TrialState.COMPLETE, 0.4))
    with locks.hold_deployed(said.append):  # a lock of another opening of the file, as of another process
        began = time.monotonic()
        record.bring()
        assert time.monotonic() - began < 0.5 and not said
        record.bring("FINISHED")
        assert 1 < time.monotonic() - began < 20
    assert len(said) == 1 and "the same command again adds what is missing" in said[0]
    record.bring()
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
