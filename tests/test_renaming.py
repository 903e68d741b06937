"""A checkout of revision d4ec35b, where tasks had other names, goes on under the present ones, history and all.

old_checkouts/d4ec35b.tar.gz is what `python -m convoy backup` of that revision wrote. built_pipeline.lay of its tests
made the pipeline's files in an empty folder: text and text-stream once, image three times (shift 5, 0 and 40), each
time followed by a publish; then `rollback --task image`. Pictures, reports and the code of the models in mlruns/ were
removed before the backup.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import backup_recipe
import built_pipeline
import pytest
from dying import end_after
from kept_folder import KeptFolder
from mlflow import MlflowClient
from mlflow_store import open_empty_store

from convoy.bundles.bundle import read_release
from convoy.bundles.predictor import Predictor
from convoy.core import tasks
from convoy.operations import renaming, status
from convoy.operations.score.score import load
from convoy.release import deployment, journal, publish, registry_sync, rollback
from convoy.tracking import artifacts, mlflow_runs, registry
from convoy.tracking.settings import DATABASE, artifact_root

pytestmark = [pytest.mark.mlflow, pytest.mark.process]
OLD = Path(__file__).parent / "old_checkouts/d4ec35b.tar.gz"
KINDS = ["promotion", "promotion", "refusal", "rollback"]  # of the images
# Version 1 serves again after a rollback from 2; 3 was refused.
ALIASES = {"fashion": {"champion": "1", "challenger": "3"}, "reviews": {"champion": "1"}}
STEPS = [
    (Path, "rename"),
    (deployment, "_write_release"),
    *((MlflowClient, name) for name in ("rename_registered_model", "rename_experiment", "update_run", "set_tag")),
]


def silently(line: str) -> None:
    """Say nothing."""


def unpack() -> None:
    subprocess.run(["tar", "-xzf", OLD], check=True)
    Path("mlflow.db").rename(DATABASE)
    contents = json.loads(Path("manifest.json").read_bytes())
    for link, target in contents["links"].items():
        Path(link).symlink_to(target)
    backup_recipe.move_paths(DATABASE, contents["artifact_root"].removeprefix("file://"), str(artifact_root()))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> KeptFolder:
    return KeptFolder(tmp_path_factory.mktemp("old"), unpack)


@pytest.fixture
def place(old: KeptFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout as that revision left it."""
    return old.restore(monkeypatch)


@pytest.fixture
def migrated(place: Path) -> MlflowClient:
    client = mlflow_runs.open_store()
    renaming.rename_tasks(client, silently)
    return client


def test_what_is_built_next_is_told_where_a_task_has_its_name(place: Path) -> None:
    said: list[str] = []
    shutil.copy(Path(__file__).parents[1] / "params.yaml", "params.yaml")
    client = mlflow_runs.open_store()
    for _ in range(2):
        renaming.rename_tasks(client, said.append)
    assert said.count("next: dvc repro, then python -m convoy publish") == 1


def convoy(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "convoy", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def histories() -> dict[str, list[bytes]]:
    """The lines of each history, by the present name of its task."""
    old = {former: name for name, former in tasks.FORMER_NAMES.items()}
    return {old.get(task, task): list(journal.read_history(task).lines) for task in tasks.with_history()}


def held(client: MlflowClient) -> dict[str, Any]:
    """What deployed/ and MLflow have, by names."""
    models = client.search_registered_models()
    files = {str(path): os.readlink(path) if path.is_symlink() else "" for path in Path("deployed").rglob("*")}
    experiments = {each.name: each.experiment_id for each in client.search_experiments() if each.name != "Default"}
    runs = {run.info.run_id: (run.info.run_name, run.data.tags) for run in client.search_runs([*experiments.values()])}
    return {
        "models": {each.name: {alias: str(number) for alias, number in each.aliases.items()} for each in models},
        "releases": {path: json.loads(Path(path).read_text()) for path in files if path.endswith("release.json")},
        "files": files,
        "experiments": experiments,
        "runs": runs,
    }


def test_deployed_models_and_histories_have_the_present_names(place: Path) -> None:
    before = histories()
    serving = {task: deployment.current_digest(former) for task, former in tasks.FORMER_NAMES.items()}
    done = convoy("migrate")
    assert done.returncode == 0, done.stderr
    assert "image -> fashion: deployed/image is deployed/fashion now, with its history" in done.stdout
    assert tasks.deployed() == tasks.with_history() == ["fashion", "reviews", "reviews-stream"]
    assert {task: deployment.current_digest(task) for task in serving} == serving and all(serving.values())
    assert histories() == before and [decision.kind for decision in journal.read("fashion")] == KINDS
    for task, digest in serving.items():
        release = read_release(Path("deployed", task, "current"))
        assert release is not None and (release.name, release.digest) == (f"convoy-{task}", digest)
        assert load(task).digest == digest
    assert Predictor(Path("deployed/reviews-stream/current")).card.task == "text-stream", "its files are as they were"


def test_models_experiments_and_decisions_are_renamed_in_mlflow(migrated: MlflowClient) -> None:
    found = held(migrated)
    assert found["models"] == {f"convoy-{task}": ALIASES.get(task, ALIASES["reviews"]) for task in tasks.FORMER_NAMES}
    assert set(found["experiments"]) == {*(f"convoy-{task}" for task in tasks.FORMER_NAMES), registry_sync.EXPERIMENT}
    for number in ("1", "2", "3"):
        version = registry.get_version(migrated, "fashion", number)
        with registry.bundle_of(migrated, version, []) as bundle:  # from MLflow's own files
            assert bundle.digest == registry.digest_of_version(version)
    decided = migrated.search_runs([found["experiments"][registry_sync.EXPERIMENT]])
    assert {run.info.run_name: run.data.tags[mlflow_runs.RUN_KEY] for run in decided} == {
        task: f"decisions:{task}" for task in tasks.FORMER_NAMES
    }


def test_the_history_in_mlflow_is_found_under_the_new_name(migrated: MlflowClient) -> None:
    lines = histories()
    shutil.rmtree("deployed")
    for task in lines:
        assert registry_sync.has_later_lines(migrated, task), "the lines of that history, which is gone here"


def test_publish_afterwards_adds_nothing_twice_and_restores_nothing(migrated: MlflowClient) -> None:
    for task in built_pipeline.DATA:
        built_pipeline.write_params(Path(), task)
    said: list[str] = []
    publish.publish(migrated, said.append)
    before, lines = held(migrated), histories()
    assert {task: len(of_task) for task, of_task in lines.items()} == {"fashion": 7, "reviews": 2, "reviews-stream": 2}
    assert not [line for line in said if "again" in line or "restored" in line], said
    publish.publish(migrated, said.append)
    assert held(migrated) == before and histories() == lines
    assert len(migrated.search_model_versions("name = 'convoy-fashion'")) == 3


def test_what_is_built_next_is_judged_beside_the_old_champion(migrated: MlflowClient) -> None:
    built_pipeline.lay(Path())
    said: list[str] = []
    publish.publish(migrated, said.append, ["fashion"])
    assert any("is convoy-fashion version 4 (new)" in line for line in said), said
    version = registry.get_version(migrated, "fashion", "4")
    assert any(name.endswith(".json") for name in artifacts.list_files(migrated, str(version.run_id), "gates"))
    assert [decision.kind for decision in journal.read("fashion")][:4] == KINDS
    assert any("judging version 4" in line for line in said) and deployment.current_digest("fashion")


def test_history_status_and_rollback_work_under_the_new_name(place: Path) -> None:
    assert convoy("migrate").returncode == 0
    told = convoy("history", "--task", "fashion")
    assert told.returncode == 0 and "it answers worse" in told.stdout and "refusal" in told.stdout
    former = convoy("history", "--task", "image")
    assert former.returncode == 2 and "is called 'fashion' now" in " ".join(former.stderr.replace("│", " ").split())
    found = {each.task: each for each in status.read_status(1)}
    assert set(found) == set(tasks.FORMER_NAMES)
    assert (found["fashion"].deployed.version, found["fashion"].deployed.whole) == ("1", True)
    assert found["fashion"].last_decision is not None and "rollback" in found["fashion"].last_decision
    second = journal.read("fashion")[1].after
    rollback.rollback(silently, "fashion", "2", "it was right", deployment.current_digest("fashion"))
    assert deployment.current_digest("fashion") == second.digest and journal.read("fashion")[-1].kind == "forced"


def test_a_second_migrate_does_nothing(migrated: MlflowClient) -> None:
    before = held(migrated)
    said: list[str] = []
    renaming.rename_tasks(migrated, said.append)
    assert held(migrated) == before and said == ["every task has its present name already; nothing to do"]


def test_a_kill_between_steps_is_completed_by_a_second_call(old: KeptFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def expected() -> tuple[dict[str, Any], dict[str, list[bytes]]]:
        return held(mlflow_runs.open_store()), histories()

    old.restore(monkeypatch)
    renaming.rename_tasks(mlflow_runs.open_store(), silently)
    wanted, ends = expected(), []
    for step in range(60):
        old.restore(monkeypatch)
        ends.append(end_after(step, steps, lambda: renaming.rename_tasks(mlflow_runs.open_store(), silently)))
        renaming.rename_tasks(mlflow_runs.open_store(), silently)
        assert expected() == wanted, step
        if ends[-1] == 0:
            break
    assert ends[-1] == 0 and len(ends) > 20 and set(ends[:-1]) == {9}


def steps() -> Iterator[tuple[Any, str]]:
    """What changes something on the disk or in MLflow."""
    yield from STEPS


@pytest.mark.parametrize("where", ["deployed", "MLflow"])
def test_both_names_in_use_are_refused_before_anything_changes(place: Path, where: str) -> None:
    client = mlflow_runs.open_store()
    if where == "deployed":
        shutil.copytree("deployed/image", "deployed/fashion", symlinks=True)
    else:
        client.create_registered_model("convoy-fashion")
    before = held(client)
    with pytest.raises(
        renaming.RenamingRefused, match=r"deployed/fashion are both|models convoy-image and convoy-fash"
    ):
        renaming.rename_tasks(client, silently)
    assert held(client) == before
    refused = convoy("migrate")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and "Traceback" not in refused.stderr


def test_runs_of_both_experiments_stay_and_are_named(place: Path) -> None:
    """As where `dvc repro` ran before this: the training that MLflow followed has made the experiment."""
    client = mlflow_runs.open_store()
    mlflow_runs.experiment_of(client, "fashion")
    said: list[str] = []
    renaming.rename_tasks(client, said.append)
    assert client.get_experiment_by_name("convoy-image") is not None
    assert any("MLflow has the experiments convoy-image and convoy-fashion" in line for line in said), said


def test_an_older_database_beside_the_folders_is_migrated_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revision d4ec35b had mlflow.db in the folder itself, and it stays in use there."""
    [database] = place.glob("*.db")
    database.rename("mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    done = convoy("migrate")
    assert done.returncode == 0 and "convoy-image is convoy-fashion now" in done.stdout
    assert not Path("mlflow-store/mlflow.db").exists()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """An empty store in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_empty_store()


def test_an_experiment_in_the_bin_is_renamed(client: MlflowClient) -> None:
    number = client.create_experiment("convoy-image")
    client.delete_experiment(number)
    renaming.rename_tasks(client, silently)
    found = client.get_experiment_by_name("convoy-fashion")
    assert found is not None and (found.experiment_id, found.lifecycle_stage) == (number, "active")


def test_a_binned_present_name_makes_room(client: MlflowClient) -> None:
    deleted, number = client.create_experiment("convoy-fashion"), client.create_experiment("convoy-image")
    client.delete_experiment(deleted)
    said: list[str] = []
    renaming.rename_tasks(client, said.append)
    assert client.get_experiment(number).name == "convoy-fashion"
    aside = client.get_experiment(deleted)
    assert (aside.name, aside.lifecycle_stage) == (f"convoy-fashion-{deleted}", "deleted")
    assert not any("stay there" in line for line in said)


def test_folders_in_use_are_not_named_unused(client: MlflowClient) -> None:
    Path("params.yaml").write_text(
        "data: {text: {kind: text}, reviews: {kind: text}}\n"
        "tasks: {image-cnn: {data: text, kind: text}}\n"
        "candidates: {one: {task: image-cnn, data: text, kind: text, network: {name: cnn}}}\n"
    )
    for folder in (
        "data/raw/text",
        "data/prepared/text",
        "candidates/image-cnn",
        "candidates/text-cnn",
        "bundles/text",
    ):
        Path(folder).mkdir(parents=True)
    said: list[str] = []
    renaming.rename_tasks(client, said.append)
    assert said[-1] == "no stage uses these any more: rm -r bundles/text candidates/text-cnn"
