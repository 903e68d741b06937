"""What goes by the retention is told first; what serves, did before or waits stays whole, wherever a kill stops it."""

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import backup_recipe
import built_pipeline
import pytest
from dying import end_after
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow_store import open_empty_store
from typer.testing import CliRunner

from convoy.__main__ import app
from convoy.bundles.bundle import read_bundle
from convoy.core.params import read_section
from convoy.core.paths import DEPLOYED
from convoy.operations.cleanup import gc, run_cleanup
from convoy.operations.cleanup.retention import ClockSuspicious, KeepParams, Removable, check_clock, judge
from convoy.release import deployment, journal, promote, publish
from convoy.release.decision import Grounds, Model
from convoy.tracking import artifacts, mlflow_runs, registration, registry
from convoy.tracking.checked_bundle import CheckedBundle
from convoy.tracking.settings import DATABASE, artifact_root
from convoy.training import checkpoints

pytestmark = [pytest.mark.torch, pytest.mark.mlflow]
LEAST = KeepParams(days=30, bundles=1, versions=1, runs=0, training_days=7)
NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=365)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which four image models have been built, published and promoted one after the other."""
    home = tmp_path_factory.mktemp("four")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = open_empty_store()
        for version in range(1, 5):
            built_pipeline.lay(home, version=version)
            publish.publish(client, lambda line: None, ["fashion"])
    return home


class Place:
    """A copy of `four`, with its MLflow."""

    def __init__(self) -> None:
        self.client = mlflow_runs.open_store()
        os.utime(DEPLOYED / "fashion/current", (0, 0), follow_symlinks=False)  # no promotion of this minute

    def plan(self, params: KeepParams = LEAST, now: datetime = LATER) -> dict[str, tuple[bool, str]]:
        """What was found -> whether it goes, and why."""
        made = gc.plan(self.client, params, now, clock_is_right=True)
        return {each.thing.name: (each.goes, each.why) for each in made.judged}

    def gc(self) -> None:
        going = gc.plan(self.client, LEAST, LATER, clock_is_right=True).going
        gc.carry_out(self.client, going, lambda line: None)

    def digest(self, version: int) -> str:
        return str(registry.get_version(self.client, "fashion", str(version)).tags[registry.DIGEST])

    def holds(self) -> set[str]:
        """All that gc could take, by name."""
        versions = {f"version {version.version}" for version in registry.versions(self.client, "fashion")}
        runs = {str(run.run.info.run_id) for run in run_cleanup.runs(self.client, "fashion")}
        models = {f"model of {path.parents[1].name}" for path in Path("mlruns").glob("*/*/artifacts/model")}
        folders = {path.name for path in Path("mlruns").glob("*/*")}
        return versions | runs | models | folders | {path.name for path in (DEPLOYED / "fashion").iterdir()}

    def check(self) -> None:
        """The champion and the one before it are whole, deployed and in MLflow."""
        champion = registry.version_with(self.client, "fashion", "champion")
        assert champion is not None and str(champion.version) == "4"
        for number in (3, 4):
            version = registry.get_version(self.client, "fashion", str(number))
            digest = version.tags[registry.DIGEST]
            assert read_bundle(deployment.folder_of("fashion", digest)).digest == digest
            with registry.bundle_of(self.client, version, []) as bundle:
                assert bundle.digest == digest
        assert deployment.current_digest("fashion") == self.digest(4)


@pytest.fixture
def place(four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return copied(four, tmp_path / "place")


def copied(four: Path, folder: Path) -> Place:
    """A copy in which to work; MLflow notes absolute paths, which move with it as a restore moves them."""
    shutil.copytree(four, folder, symlinks=True)
    os.chdir(folder)
    backup_recipe.move_paths(DATABASE, str(four / "mlruns"), str(artifact_root()))
    return Place()


def test_what_is_beyond_the_retention_goes_and_the_rest_stays_with_its_reason(place: Place) -> None:
    found = place.plan()
    bundles = {number: found[f"bundle fashion {place.digest(number)[:12]}"] for number in range(1, 5)}
    assert bundles[4] == (False, "it serves")
    assert bundles[3] == (False, "it served before; a rollback goes back to it")
    assert {bundles[number] for number in (1, 2)} == {(True, "beyond the newest 1 and older than 30 days")}
    assert [found[f"convoy-fashion {number}"][0] for number in range(1, 5)] == [True, True, False, False]
    runs = {name: reason for name, reason in found.items() if name.startswith("run ")}
    assert sum(goes for goes, _ in runs.values()) == 5  # two candidates of two builds, and the third's loser
    reasons = {why for goes, why in runs.values() if not goes}
    assert reasons == {"version 3 is of it", "version 4 is of it", "dvc.lock names it"}


def test_runs_that_dvc_lock_names_stay_without_their_weights(place: Place) -> None:
    before = place.plan()
    shutil.rmtree("candidates")
    Path("reports/baselines/fashion/predictions.csv").unlink()
    assert place.plan() == before


@pytest.mark.process
def test_what_goes_is_gone_and_all_else_works_as_before(place: Place) -> None:
    of_a_person = place.client.create_run(mlflow_runs.experiment_of(place.client, "fashion")).info.run_id
    place.client.delete_run(of_a_person)
    place.gc()
    assert place.client.get_run(of_a_person).info.lifecycle_stage == "deleted"  # in MLflow's bin, as before
    place.check()
    assert {goes for goes, _ in place.plan().values()} == {False}
    assert len(registry.versions(place.client, "fashion")) == 2
    runs = run_cleanup.runs(place.client, "fashion")
    experiments = [each.experiment_id for each in place.client.search_experiments()]  # that of the decisions too
    known = {run.info.run_id for run in place.client.search_runs(experiments)}
    assert {each.run_id for each in runs} <= {path.name for path in Path("mlruns").glob("*/*")} <= known
    before = place.holds()
    said: list[str] = []
    publish.publish(place.client, said.append, ["fashion"])
    assert place.holds() == before and any("version 4 (known already)" in line for line in said)
    promote.promote(place.client, said.append, "fashion", "3", "back", deployment.current_digest("fashion"))
    assert deployment.current_digest("fashion") == place.digest(3)


def test_a_challenger_that_waits_stays_and_one_that_was_replaced_does_not(place: Place) -> None:
    for version in (6, 7):
        built_pipeline.lay(Path(), version=version, shift=40)
        publish.publish(place.client, lambda line: None, ["fashion"])
    built_pipeline.lay(Path(), version=4)
    found = place.plan()
    assert found["convoy-fashion 6"] == (False, "a challenger that waits")
    assert found["convoy-fashion 5"][0]


def test_what_a_decision_of_late_names_stays(place: Place) -> None:
    built_pipeline.lay(Path(), version=5)
    publish.publish(place.client, lambda line: None, ["fashion"])
    os.utime(DEPLOYED / "fashion/current", (0, 0), follow_symlinks=False)
    for old, age in ((2, 29), (1, 31)):
        about = Model(version=str(old), digest=place.digest(old))
        at = (LATER - timedelta(days=age)).isoformat()
        journal.append("fashion", journal.deployed_model("fashion"), about, Grounds("refusal", "by hand"), at)
    found = place.plan()
    assert found["convoy-fashion 2"] == (False, "a decision of the last 30 days names it")
    assert not found[f"bundle fashion {place.digest(2)[:12]}"][0]
    assert found["convoy-fashion 1"][0]


def test_nothing_younger_goes_however_many_there_are(place: Place) -> None:
    assert {goes for goes, _ in place.plan(now=datetime.now(UTC)).values()} == {False}


def test_what_a_service_may_still_be_reading_stays(place: Place) -> None:
    os.utime(DEPLOYED / "fashion/current", follow_symlinks=False)
    found = place.plan()
    assert "a service may still read it" in found[f"bundle fashion {place.digest(1)[:12]}"][1]


def test_runs_that_publish_did_not_make_are_not_judged(place: Place) -> None:
    experiment = mlflow_runs.experiment_of(place.client, "fashion")
    for tags in ({}, {mlflow_runs.RUN_KEY: "tune", "optuna.state": "COMPLETE"}):
        run = place.client.create_run(experiment, tags=tags)
        place.client.set_terminated(run.info.run_id)
    place.client.create_run(experiment, tags={mlflow_runs.RUN_KEY: "x", "convoy.architecture": "cnn"})  # goes on
    runs = [name for name in place.plan() if name.startswith("run ")]
    assert (
        len(runs) == len(run_cleanup.runs(place.client, "fashion")) - 3 - 4
    )  # nor are those that say what was built when


def test_checkpoints_go_where_nobody_goes_on_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gc.TRAININGS == checkpoints.HOME
    monkeypatch.chdir(tmp_path)
    client = open_empty_store()
    for name in ("fashion-cnn-old", "fashion-cnn-busy", "fashion-cnn-new"):
        folder = gc.TRAININGS / name
        folder.mkdir(parents=True)
        for path in (folder / "lock", folder / "epoch=0001.ckpt", folder):
            if path != folder:
                path.write_bytes(b"x" * 100)
            if name != "fashion-cnn-new":
                os.utime(path, (0, 0))
    with (gc.TRAININGS / "fashion-cnn-busy/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = gc.plan(client, LEAST, datetime.now(UTC))
        assert [thing.name for thing in made.going] == ["training fashion-cnn-old"]
        gc.carry_out(client, made.going, lambda line: None)
    assert {path.name for path in gc.TRAININGS.iterdir()} == {"fashion-cnn-busy", "fashion-cnn-new"}


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.proof)])
def test_a_kill_at_any_step_leaves_what_stays_whole_and_the_next_gc_goes_on(
    four: Path, place: Place, tmp_path: Path, every: int
) -> None:
    place.gc()
    place.check()
    wanted = place.holds()
    ends = []
    for step in range(every - 1, 200, every):
        place = copied(four, tmp_path / str(step))  # MLflow keeps a database open by its name
        ends.append(end_after(step, collecting, lambda: Place().gc()))
        place.check()
        place.gc()
        place.check()
        assert place.holds() == wanted, step
        if ends[-1] == 0:
            break
    assert ends[-1] == 0 and len(ends) > 40 // every and set(ends[:-1]) == {9}


def collecting() -> Iterator[tuple[object, str]]:
    """What changes something in MLflow or on the disk; `rmdir` is called in the midst of what rmtree does."""
    yield from ((MlflowClient, name) for name in ("set_tag", "delete_tag", "delete_model_version", "delete_run"))
    yield from ((os, name) for name in ("rename", "rmdir"))
    yield type(mlflow_runs.open_store()._tracking_client.store), "_hard_delete_run"


def lead_elsewhere(run_id: str, uri: str) -> None:
    """As whoever writes to MLflow's database can."""
    with closing(sqlite3.connect("mlflow-store/mlflow.db")) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (uri, run_id))


ELSEWHERE = {
    "another folder": lambda artifacts, other: other.as_uri(),
    "dots": lambda artifacts, other: f"{artifacts.as_uri()}/../../../../../{other.relative_to(Path.cwd().parent)}",
    "dots that end as they should": lambda artifacts, other: (
        f"{artifacts.parents[2].as_uri()}/../../{other.relative_to(Path.cwd().parent)}"
    ),
    "encoded dots": lambda artifacts, other: (
        f"{artifacts.parents[2].as_uri()}/%2e%2e/%2e%2e/{other.relative_to(Path.cwd().parent)}"
    ),
    "a link": lambda artifacts, other: linked(artifacts, other).as_uri(),
    "another run": lambda artifacts, other: next(
        each.as_uri() for each in artifacts.parents[1].glob("*/artifacts") if each != artifacts
    ),
}


def linked(artifacts: Path, other: Path) -> Path:
    artifacts.rename(artifacts.with_name("before"))
    artifacts.symlink_to(other)
    return artifacts


@pytest.mark.parametrize("name", ELSEWHERE)
def test_gc_removes_nothing_outside_the_artifact_root(place: Place, name: str) -> None:
    version = registry.get_version(place.client, "fashion", "1")
    run_id = str(version.run_id)
    [artifacts] = Path.cwd().glob(f"mlruns/*/{run_id}/artifacts")
    other = Path.cwd().parent / "other" / run_id / "artifacts"
    for model in (registry.FOLDER, f"{registry.FOLDER}-mine"):
        (other / model).mkdir(parents=True)
        (other / model / "file").touch()
    lead_elsewhere(run_id, ELSEWHERE[name](artifacts, other))

    def held() -> set[Path]:
        return {path for root in (other, Path("mlruns")) for path in root.rglob("*")}

    before = held()
    goes, why = place.plan()["convoy-fashion 1"]
    run_cleanup.retire_version(place.client, "fashion", version)
    assert held() == before
    assert not goes and "outside the artifact root" in why
    with pytest.raises(run_cleanup.RetiringFailed, match="it stays"):
        run_cleanup.retire_runs(place.client, [run_id])
    for begun in ("model", "run"):
        place.client.set_tag(run_id, run_cleanup.RETIRED, begun)
        if begun == "run":
            place.client.delete_run(run_id)
        run_cleanup.finish(place.client, "fashion")
    assert held() == before and place.client.get_run(run_id).info.lifecycle_stage == "deleted"


def test_nothing_is_written_outside_the_artifact_root(place: Place) -> None:
    version = registry.get_version(place.client, "fashion", "4")
    other = Path.cwd().parent / "other"
    lead_elsewhere(str(version.run_id), other.as_uri())
    with pytest.raises(artifacts.StoreMoved, match="nothing was written there"):
        artifacts.put_files(place.client, str(version.run_id), {"gates/report.json": b"{}"})
    bundle = CheckedBundle.read(deployment.folder_of("fashion", place.digest(4)))
    with pytest.raises(artifacts.StoreMoved, match="nothing was written there"):
        registration.register(place.client, "fashion", bundle, str(version.run_id), {})
    assert not other.exists()


def test_what_else_is_in_mlflow_s_bin_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    client = open_empty_store()
    mine = client.create_experiment("mine", artifact_location=(tmp_path / "mine").as_uri())
    for experiment in (mine, mlflow_runs.experiment_of(client, "fashion")):
        run_id = client.create_run(experiment, tags={mlflow_runs.RUN_KEY: "x"}).info.run_id
        client.log_dict(run_id, {}, "model/file.json")
    model = client.create_logged_model(mlflow_runs.experiment_of(client, "fashion"), name="mine")
    client.delete_logged_model(model.model_id)
    client.delete_experiment(mine)
    run_cleanup.retire_runs(client, [run_id])
    assert not list(Path("mlruns").glob("*/*"))
    assert client.get_experiment(mine).lifecycle_stage == "deleted" and list(Path("mine").rglob("file.json"))
    assert client._tracking_client.store._get_deleted_logged_models() == [model.model_id]


def test_the_verb_tells_and_removes_nothing_unless_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Path("release.yaml").read_text()
    Path("release.yaml").write_text(params + "keep: {days: 30, bundles: 1, versions: 1, runs: 0, training_days: 7}\n")
    done = CliRunner().invoke(app, ["gc"])
    assert done.exit_code == 0, done.output
    assert "nothing goes" in done.output and "nothing was removed; `python -m convoy gc --yes`" in done.output
    assert "it served before; a rollback goes back to it" in done.output
    (DEPLOYED / "fashion/decisions.jsonl").unlink()  # as where the releases are older than the history
    for path in (DEPLOYED / "fashion").glob("*/release.json"):
        release = json.loads(path.read_text())
        release.pop("history", None)
        path.write_text(json.dumps({**release, "promoted_at": f"201{release['version']}-01-01T00:00:00+00:00"}))
    before = place.holds()
    assert "go, " in CliRunner().invoke(app, ["gc"]).output
    assert place.holds() == before
    done = CliRunner().invoke(app, ["gc", "--yes"])
    assert done.exit_code == 0 and "are gone" in done.output
    place.check()
    assert len([path for path in (DEPLOYED / "fashion").iterdir() if len(path.name) == 64]) == 2


def test_gc_refuses_a_clock_that_jumped(place: Place) -> None:
    now = datetime.now(UTC)  # some minutes after NOW, on a busy machine
    for jumped, told in ((LATER, "over 30 days after"), (now - timedelta(days=2), "before")):
        with pytest.raises(ClockSuspicious, match=rf"{told} the newest record .*--clock-is-right"):
            gc.plan(place.client, LEAST, jumped)
        gc.plan(place.client, LEAST, jumped, clock_is_right=True)
    gc.plan(place.client, LEAST, now + timedelta(days=29))


def test_a_clock_is_right_near_the_newest_record() -> None:
    skewed = NOW + timedelta(minutes=4)  # of a server whose clock is a little ahead
    for newest, refused in (
        (NOW, False),
        (skewed, False),
        (NOW - timedelta(days=31), True),
        (NOW + timedelta(hours=1), True),
    ):
        with pytest.raises(ClockSuspicious) if refused else nullcontext():
            check_clock(newest, 30, NOW)
    check_clock(None, 30, NOW)


def test_the_verb_refuses_unless_the_clock_is_right(place: Place) -> None:
    params = Path("release.yaml").read_text()
    Path("release.yaml").write_text(params + "keep: {days: 30, bundles: 1, versions: 1, runs: 0, training_days: 7}\n")
    year_ms = 365 * 24 * 3600 * 1000  # everything is a year old: as a clock that is a year ahead has it
    with closing(sqlite3.connect("mlflow-store/mlflow.db")) as connection, connection:
        connection.execute("UPDATE runs SET start_time = start_time - ?, end_time = end_time - ?", (year_ms, year_ms))
        for column in ("creation_time", "last_updated_time"):
            connection.execute(f"UPDATE model_versions SET {column} = {column} - ?", (year_ms,))
    journal.path_of("fashion").unlink()
    for path in (DEPLOYED / "fashion").glob("*/release.json"):
        release = json.loads(path.read_text())
        release.pop("history", None)
        path.write_text(json.dumps({**release, "promoted_at": "2020-01-01T00:00:00+00:00"}))
    before = place.holds()
    done = CliRunner().invoke(app, ["gc", "--yes"])
    assert done.exit_code == 1 and "--clock-is-right" in done.output
    assert place.holds() == before
    done = CliRunner().invoke(app, ["gc", "--yes", "--clock-is-right"])
    assert done.exit_code == 0 and "are gone" in done.output, done.output
    place.check()


def test_a_server_s_store_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc.settings, "is_local", lambda uri: False)
    made = gc.plan(place.client, LEAST, LATER, clock_is_right=True)
    assert {each.thing.kind for each in made.judged} == {"bundle"} and "is left alone" in made.notes[0]


def test_the_params_of_this_repository_are_complete() -> None:
    root = Path(__file__).parents[1]
    assert read_section(KeepParams, "keep", path=root / "release.yaml").bundles >= 1


AGES = st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=12)


@given(AGES, st.integers(0, 5), st.integers(1, 300))
def test_what_is_protected_or_new_never_goes_and_more_age_never_saves(
    ages: list[tuple[int, bool]], newest: int, days: int
) -> None:
    things = [
        Removable("run", f"run {place}", str(place), 1, LATER - timedelta(days=age), "protected" if held else "")
        for place, (age, held) in enumerate(ages)
    ]
    judged = judge(things, newest, days, LATER)
    assert {each.thing.key for each in judged} == {thing.key for thing in things}
    going = [each.thing for each in judged if each.goes]
    assert all(not thing.protected and LATER - thing.at > timedelta(days=days) for thing in going)
    free = [each for each in judged if not each.thing.protected]
    verdicts = [each.goes for each in free]
    assert verdicts == sorted(verdicts)
    assert sum(verdicts) <= max(0, len(things) - newest)
