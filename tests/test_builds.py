"""What MLflow shows of a build: its candidates, its figures; run, version and build name each other."""

import json
from pathlib import Path

import built_pipeline
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow_store import open_empty_store

from convoy.bundles.bundle import digest_of
from convoy.release import publish as publishing
from convoy.tracking import artifacts, build_runs, mlflow_runs
from convoy.tracking.provenance import Lock

pytestmark = pytest.mark.mlflow


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    built_pipeline.lay(tmp_path)
    return open_empty_store()


def publish(client: MlflowClient) -> str:
    lines: list[str] = []
    publishing.publish(client, lines.append, ["fashion"])
    return "\n".join(lines)


def built(client: MlflowClient) -> list[Run]:
    """The builds, the oldest first."""
    query = f"tags.`{build_runs.LOCK_DIGEST}` != ''"
    return client.search_runs([mlflow_runs.experiment_of(client, "fashion")], query, order_by=["start_time ASC"])


def export_otherwise() -> None:
    """As after an edit that concerns export alone."""
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["export@fashion"]["cmd"] = "python -m pipelines.export fashion --otherwise"
    Path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def test_run_version_and_build_name_each_other_with_revision_and_hashes(client: MlflowClient, tmp_path: Path) -> None:
    built_pipeline.git(tmp_path, "init", "--quiet")
    built_pipeline.git(tmp_path, "add", "params.yaml", "release.yaml", "dvc.lock", "pipelines")
    built_pipeline.git(tmp_path, "commit", "--quiet", "--message", "first")
    revision = built_pipeline.git(tmp_path, "rev-parse", "HEAD").strip()
    assert "new, of fashion-cnn, fashion-lstm" in publish(client)
    [build], version = built(client), client.get_model_version("convoy-fashion", "1")
    run, lock = client.get_run(str(version.run_id)), Lock.read()
    assert run.data.tags["convoy.version"] == build.data.tags["convoy.version"] == "convoy-fashion/1"
    assert build.data.tags["convoy.winner_run"] == run.info.run_id
    assert run.data.tags["convoy.build_run"] == version.tags["convoy.build_run"] == build.info.run_id
    assert build.data.tags["convoy.bundle_digest"] == version.tags["digest"] == digest_of(Path("bundles/fashion"))
    for tags in (build.data.tags, version.tags):
        assert tags["convoy.git_revision"] == revision and tags["convoy.git_dirty"] == "false"
        assert tags["convoy.dvc.bundles/fashion"] == lock.outs("export@fashion")["bundles/fashion"]
        prepared = "data/prepared/fashion"
        assert tags[f"convoy.dvc.{prepared}"] == lock.outs("prepare@fashion")[prepared]
        assert tags["convoy.dvc_lock"]
    assert revision in version.description and build.info.run_id in version.description
    kept = tmp_path / "kept.lock"
    kept.write_bytes(artifacts.read(client, run.info.run_id, "model/dvc.lock"))
    held = artifacts.list_files(client, build.info.run_id)
    reports = ("fashion/fashion-cnn/metrics.json", "fashion/choice.json", "baselines/fashion/figures.json")
    assert {f"reports/{name}" for name in reports} <= set(held)
    assert Lock.read(kept).stages == lock.stages and len(lock.stages) == 8


def test_a_build_is_the_parent_of_its_candidates(client: MlflowClient) -> None:
    publish(client)
    [build] = built(client)
    runs = {run.info.run_name: run for run in client.search_runs([build.info.experiment_id])}
    children = {name for name, run in runs.items() if run.data.tags.get("mlflow.parentRunId") == build.info.run_id}
    assert children == {"fashion-cnn", "fashion-lstm"}
    winner = runs["fashion-cnn"].data.metrics
    headlines = {"validation/accuracy", "validation/macro_f1", "validation/log_loss"}
    headlines |= {"test/accuracy", "test/macro_f1", "test/log_loss"}
    assert build.data.metrics == {name: winner[name] for name in headlines}


def test_a_later_build_leaves_candidates_their_first_parent(client: MlflowClient) -> None:
    publish(client)
    export_otherwise()
    assert "new, of fashion-cnn, fashion-lstm" in publish(client)
    first, _ = built(client)
    runs = client.search_runs([first.info.experiment_id], "tags.`convoy.architecture` != ''")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {first.info.run_id}


def test_edits_stand_beside_the_version(client: MlflowClient, tmp_path: Path) -> None:
    built_pipeline.git(tmp_path, "init", "--quiet")
    built_pipeline.git(tmp_path, "add", "params.yaml", "release.yaml", "dvc.lock", "pipelines")
    built_pipeline.git(tmp_path, "commit", "--quiet", "--message", "first")
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "# an edit\n")
    publish(client)
    version = client.get_model_version("convoy-fashion", "1")
    assert b"+# an edit" in artifacts.read(client, str(version.run_id), "model/source.patch")


def test_the_same_state_again_adds_nothing_also_after_another_one(client: MlflowClient) -> None:
    def all_of() -> list[object]:
        versions = client.search_model_versions("name = 'convoy-fashion'")
        runs = [(run.info.run_id, json.dumps(run.data.tags, sort_keys=True)) for run in built(client)]
        return [*runs, *((each.version, each.tags, each.description) for each in versions)]

    publish(client)
    before = Path("dvc.lock").read_bytes()
    once = all_of()
    assert "known already" in publish(client) and all_of() == once
    export_otherwise()
    publish(client)
    twice = all_of()
    assert twice != once
    Path("dvc.lock").write_bytes(before)
    publish(client)
    assert all_of() == twice


def test_a_build_that_was_deleted_comes_back_and_is_named_again(client: MlflowClient) -> None:
    publish(client)
    [build] = built(client)
    client.delete_run(build.info.run_id)
    publish(client)
    [again] = built(client)
    version = client.get_model_version("convoy-fashion", "1")
    assert again.info.run_id != build.info.run_id
    assert version.tags["convoy.build_run"] == again.info.run_id
    assert client.get_run(str(version.run_id)).data.tags["convoy.build_run"] == again.info.run_id
