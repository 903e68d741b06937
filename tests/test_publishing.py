"""Publishing: everything built is in MLflow once, and the right bundle serves; against a real SQLite store."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import built_pipeline
import pytest
import tiny_bundles
import yaml
from kept_folder import KeptFolder
from mlflow import MlflowClient
from mlflow_store import open_empty_store
from test_ports import free_port

from convoy.bundles import bundle as bundle_module
from convoy.bundles.bundle import digest_of, read_bundle, read_release
from convoy.bundles.predictor import Predictor
from convoy.operations import smoke_request, supervisor
from convoy.release import deployment, journal, promote, publish, pull
from convoy.release.decision import ApprovalRefused, Grounds, Model
from convoy.release.rollback import withdraw
from convoy.tracking import artifacts, mlflow_runs, registry
from convoy.tracking.build_state import read_build_state
from convoy.tracking.provenance import Lock

pytestmark = pytest.mark.mlflow


class Place:
    """A folder with a pipeline that ran, an MLflow store, and what publishing says."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def publish(self, task: str = "fashion") -> str:
        lines: list[str] = []
        publish.publish(self.client, lines.append, [task])
        return "\n".join(lines)

    def promote(self, number: str | None = None, reason: str = "", task: str = "fashion") -> str:
        lines: list[str] = []
        promote.promote(self.client, lines.append, task, number, reason, deployment.current_digest(task))
        return "\n".join(lines)

    def snapshot(self, task: str = "fashion") -> dict[str, object]:
        """All that MLflow holds of a task, times of its own making aside."""
        experiment = mlflow_runs.experiment_of(self.client, task)
        found: dict[str, object] = {}
        for run in self.client.search_runs([experiment]):
            history = {name: self.client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
            points = {name: [(point.step, point.value, point.timestamp) for point in history[name]] for name in history}
            inputs = [item.dataset.name + item.dataset.digest for item in run.inputs.dataset_inputs]
            files = artifacts.list_files(self.client, run.info.run_id)
            about = (run.info.status, run.info.start_time, run.info.end_time)
            found[run.info.run_id] = (about, run.data.params, run.data.tags, points, sorted(inputs), files)
        for version in self.client.search_model_versions(f"name = '{registry.model_name(task)}'"):
            found[f"version {version.version}"] = (version.tags, version.source)
        model = self.client.get_registered_model(registry.model_name(task))
        return {**found, "aliases": {alias: str(version) for alias, version in model.aliases.items()}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    built_pipeline.lay(tmp_path)
    return Place(open_empty_store())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptFolder:
    def fill() -> None:
        built_pipeline.lay(Path())
        Place(mlflow_runs.open_store()).publish()

    return KeptFolder(tmp_path_factory.mktemp("published"), fill)


@pytest.fixture
def published(kept: KeptFolder, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose images are published: version 1 is deployed."""
    kept.restore(monkeypatch)
    return Place(mlflow_runs.open_store())


def test_a_run_holds_params_curves_figures_data_sets_and_files(published: Place) -> None:
    content = read_build_state("fashion", Lock.read()).runs["fashion-cnn"]
    run = mlflow_runs.find_run(published.client, mlflow_runs.experiment_of(published.client, "fashion"), content.key)
    assert run is not None and run.info.run_name == "fashion-cnn" and run.info.status == "FINISHED"
    assert run.data.params["learning.epochs"] == "3"
    assert run.data.params["network.channels"] == "[32, 64]"
    assert run.data.params["prepare.seed"] == "0" and run.data.params["trainer.seed"] == "0"
    assert run.data.metrics["validation/accuracy"] == 0.9
    assert run.data.metrics["test/accuracy"] == 0.91
    assert run.data.metrics["test/labels/T-shirt/top/f1"] == 0.8
    curve = published.client.get_metric_history(run.info.run_id, "curves/train_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert curve[1].timestamp - curve[0].timestamp == 1500
    data_sets = {item.dataset.name: item for item in run.inputs.dataset_inputs}
    assert set(data_sets) == {"fashion-train", "fashion-validation", "fashion-test"}
    assert json.loads(data_sets["fashion-train"].dataset.source) == {"uri": "data/prepared/fashion/train.arrow"}
    assert run.data.tags["convoy.dvc.data/raw/fashion"] and run.data.tags["convoy.bundle_digest"]
    assert {"reports/fashion-cnn-confusion.png", "reports/reliability.png", "reports/parity.json", "dvc.lock"} <= set(
        artifacts.list_files(published.client, run.info.run_id)
    )


def test_a_baseline_is_a_run_beside_the_candidates_and_never_a_version(place: Place, tmp_path: Path) -> None:
    built_pipeline.lay(tmp_path, "reviews")
    said = place.publish()
    [content] = read_build_state("fashion", Lock.read()).baselines
    run = mlflow_runs.find_run(place.client, mlflow_runs.experiment_of(place.client, "fashion"), content.key)
    assert run is not None and run.info.run_name == "baseline-mlp" and run.info.status == "FINISHED"
    assert run.data.tags["convoy.baseline"] == "true"
    assert run.data.params == {"baseline": "mlp", "seed": "0", "hidden": "[8]", "epochs": "3"}
    assert run.data.metrics == {"test/accuracy": 0.85, "test/n": 100}
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"fashion-train", "fashion-test"}
    versions = place.client.search_model_versions("name = 'convoy-fashion'")
    assert [version.run_id for version in versions] != [run.info.run_id] and "run baseline-mlp: new" in said


def test_a_baseline_is_another_run_after_its_own_params_or_data_changed(place: Place, tmp_path: Path) -> None:
    def key() -> str:
        return read_build_state("fashion", Lock.read()).baselines[0].key

    before = key()
    built_pipeline.lay(tmp_path, "reviews", data=2)
    assert key() == before, "the other task's data"
    built_pipeline.lay(tmp_path, "fashion", data=2)
    assert key() != before
    built_pipeline.lay(tmp_path, "fashion")
    lock = Lock.read()
    networks = lock.stages["baselines@fashion"]["params"]["params.yaml"]["data.fashion.baselines"]["networks"]
    networks["logreg"]["epochs"] = 9
    assert read_build_state("fashion", lock).baselines[0].key == before, "another baseline's params"
    networks["mlp"]["epochs"] = 9
    assert read_build_state("fashion", lock).baselines[0].key != before


def test_baselines_that_were_changed_by_hand_are_not_published(place: Place) -> None:
    Path("reports/baselines/fashion/figures.json").write_text(json.dumps({"mlp": {"accuracy": 0.1}}))
    assert "reports/baselines/fashion/figures.json is not the file that dvc.lock names" in place.publish()
    assert read_build_state("fashion", Lock.read()).baselines == []


def test_a_clone_publishes_no_training_of_another_machine(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path.with_name(f"{tmp_path.name} clone")
    shutil.copy(Path(__file__).parents[1] / ".gitignore", ".gitignore")
    built_pipeline.git(tmp_path, "init", "--quiet")
    built_pipeline.git(tmp_path, "add", ".")
    built_pipeline.git(tmp_path, "commit", "--quiet", "--message", "dvc.lock and the reports, as git has them")
    built_pipeline.git(tmp_path, "clone", "--quiet", str(tmp_path), str(clone))
    monkeypatch.chdir(clone)
    assert Path("reports/fashion/fashion-cnn/metrics.json").exists() and not Path("candidates").exists()
    place.client = open_empty_store()
    said = place.publish()
    assert place.client.search_runs([mlflow_runs.experiment_of(place.client, "fashion")]) == []
    assert "not published, since no files here prove that they ran: fashion-cnn, fashion-lstm, the baselines" in said
    assert "candidates/fashion/fashion-cnn is not there (`dvc checkout` brings back" in said
    assert "reports/baselines/fashion/predictions.csv is not there" in said
    assert "`dvc pull` fetches what another machine made" in said


def test_what_dvc_pulled_is_published_and_says_so(place: Place, tmp_path: Path) -> None:
    there = tmp_path.with_name(f"{tmp_path.name} there")
    there.mkdir()
    for name in ("candidates", "reports/baselines"):
        shutil.move(name, there / Path(name).name)
    place.publish()
    assert not place.client.search_model_versions("name = 'convoy-fashion'")
    # What `dvc pull` of these files does.
    shutil.copytree(there / "candidates/fashion/fashion-cnn", "candidates/fashion/fashion-cnn")
    said = place.publish()
    assert "version 1 promoted" in said and "prove that they ran: fashion-lstm, the baselines" in said
    shutil.copytree(there, ".", dirs_exist_ok=True)
    shutil.copytree(there / "baselines", "reports/baselines")
    place.publish()
    runs = place.client.search_runs([mlflow_runs.experiment_of(place.client, "fashion")])
    assert {run.info.run_name for run in runs} == {"fashion-cnn", "fashion-lstm", "baseline-mlp", "build"}
    for run in runs:
        assert "where they were made is not recorded" in run.data.tags[mlflow_runs.MADE_FROM]


def test_weights_that_are_not_those_of_dvc_lock_prove_nothing(place: Place) -> None:
    Path("candidates/fashion/fashion-cnn/weights.safetensors").write_bytes(b"of another training")
    said = place.publish()
    assert (
        "candidates/fashion/fashion-cnn is not the folder that dvc.lock names" in said
        and "no bundle to publish" in said
    )
    assert "prove that they ran: fashion-cnn\n" in said


def test_publishing_again_changes_nothing(published: Place) -> None:
    before, release = published.snapshot(), read_release(Path("deployed/fashion/current"))
    said = published.publish()
    assert published.snapshot() == before
    assert read_release(Path("deployed/fashion/current")) == release
    assert "added nothing" in said and "version 1 serves" in said


def test_a_publish_reads_each_bundle_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    read_checked = bundle_module._read_checked

    def counted(path: Path, entry: dict[str, Any]) -> bytes:
        if path.name == "model.onnx":
            read.append(str(path.parent))
        return read_checked(path, entry)

    monkeypatch.setattr(bundle_module, "_read_checked", counted)
    place.publish()
    assert read[0] == "bundles/fashion" and len(read) == 2, "and the copy in deployed/, before it is switched to"
    read.clear()
    place.publish()
    deployed = f"deployed/fashion/{deployment.current_digest('fashion')}"
    assert read == ["bundles/fashion", deployed]


def test_what_was_deleted_comes_back_and_nothing_twice(published: Place) -> None:
    before = published.snapshot()
    run_id = next(name for name, held in before.items() if "reports/curves.csv" in held[-1])
    folder = Path("mlruns/convoy-fashion", run_id, "artifacts")
    (folder / "reports" / "curves.csv").unlink()
    [confusion] = (folder / "reports").glob("*-confusion.png")
    confusion.write_bytes(b"half")
    published.client.delete_tag(run_id, "convoy.task")
    published.client.delete_registered_model_alias("convoy-fashion", "champion")
    winner = published.client.get_model_version("convoy-fashion", "1").run_id
    shutil.rmtree(Path("mlruns/convoy-fashion", str(winner), "artifacts/model/data"))
    published.publish()
    assert published.snapshot() == before


def test_points_of_a_curve_that_are_missing_are_added_alone(place: Place) -> None:
    content = read_build_state("fashion", Lock.read()).runs["fashion-cnn"]
    begun = {name: points[:1] for name, points in content.curves.items()}
    experiment = mlflow_runs.experiment_of(place.client, "fashion")
    short = type(content)(content.name, content.key, content.started_ms, content.ended_ms, curves=begun)
    run, _ = mlflow_runs.complete_run(place.client, experiment, short)
    place.publish()
    history = place.client.get_metric_history(run.info.run_id, "curves/train_loss")
    assert [point.step for point in history] == [1, 2, 3]


def test_a_repeated_evaluation_is_one_more_point_not_one_per_publish(published: Place) -> None:
    report = Path("reports/fashion/test.json")
    changed = json.loads(report.read_text())
    changed["candidates"]["fashion-lstm"]["accuracy"] = 0.5
    report.write_text(json.dumps(changed))
    built_pipeline.write_lock(Path(), "fashion")
    published.publish()
    after = published.snapshot()
    published.publish()
    assert published.snapshot() == after
    content = read_build_state("fashion", Lock.read()).runs["fashion-lstm"]
    run = mlflow_runs.find_run(published.client, mlflow_runs.experiment_of(published.client, "fashion"), content.key)
    assert run is not None and run.data.metrics["test/accuracy"] == 0.5


def test_the_first_bundle_serves_and_is_the_champion(place: Place) -> None:
    assert "promoted: no champion before" in place.publish()
    release = read_release(Path("deployed/fashion/current"))
    champion = registry.version_with(place.client, "fashion", "champion")
    assert release is not None and champion is not None
    assert (release.name, release.version, release.run_id) == ("convoy-fashion", "1", champion.run_id)
    assert release.digest == champion.tags["digest"] == digest_of(Path("bundles/fashion"))


def test_a_better_bundle_takes_over_by_itself(place: Place, tmp_path: Path) -> None:
    built_pipeline.lay(tmp_path, shift=5)
    place.publish()
    built_pipeline.lay(tmp_path, version=2)
    assert "version 2 promoted over version 1" in place.publish()
    assert deployment.current_digest("fashion") == digest_of(Path("bundles/fashion"))
    assert place.snapshot()["aliases"] == {"champion": "2"}
    decision = journal.read("fashion")[-1]
    assert decision.kind == "promotion" and decision.figures["outcome"] == "passed"
    assert decision.gate_report == place.client.get_model_version("convoy-fashion", "2").tags["gates.report"]


def test_a_worse_bundle_stays_challenger_until_a_person_promotes_it(published: Place) -> None:
    serving = deployment.current_digest("fashion")
    built_pipeline.lay(Path(), shift=40, version=2)
    said = published.publish()
    assert "paired test: it is worse by" in said and "accuracy: its accuracy is" in said
    assert "python -m convoy promote --task fashion --version 2" in said
    assert deployment.current_digest("fashion") == serving
    assert published.snapshot()["aliases"] == {"champion": "1", "challenger": "2"}
    with pytest.raises(ApprovalRefused, match=r"needs --reason.*it is worse by"):
        published.promote()
    assert deployment.current_digest("fashion") == serving
    published.promote(reason="the shop needs its labels")
    assert deployment.current_digest("fashion") == digest_of(Path("bundles/fashion"))
    assert published.snapshot()["aliases"] == {"champion": "2"}


def test_a_bundle_of_other_data_is_not_compared_but_left_to_a_person(published: Place) -> None:
    built_pipeline.lay(Path(), version=2, data=2)
    assert "built on other data than the champion" in published.publish()
    assert published.snapshot()["aliases"] == {"champion": "1", "challenger": "2"}
    (version,) = (one for one in published.client.search_model_versions("name = 'convoy-fashion'") if one.version == 2)
    assert version.tags["gates"] == "undecided" and "decision" not in version.tags


def test_a_version_that_a_person_left_does_not_come_back_by_itself(published: Place) -> None:
    built_pipeline.lay(Path(), version=2)
    published.publish()
    published.promote("1")
    assert "it was decided on before (promotion from version 2" in published.publish()
    assert published.snapshot()["aliases"] == {"champion": "1", "challenger": "2"}


def test_promote_gets_a_bundle_from_mlflow_where_it_is_nowhere_else(published: Place) -> None:
    first = deployment.current_digest("fashion")
    built_pipeline.lay(Path(), version=2)
    published.publish()
    shutil.rmtree(Path("deployed/fashion", str(first)))
    published.promote("1")
    assert deployment.current_digest("fashion") == first == digest_of(Path("deployed/fashion/current"))


def test_promote_of_an_unknown_version_names_those_there_are(place: Place) -> None:
    place.publish()
    with pytest.raises(registry.VersionUnknown, match="convoy-fashion has no version 7; there is 1"):
        place.promote("7")
    with pytest.raises(registry.VersionUnknown, match="no challenger"):
        place.promote()


def test_a_promotion_that_was_cut_off_before_the_alias_is_completed(published: Place) -> None:
    built_pipeline.lay(Path(), version=2)
    published.publish()
    published.client.set_registered_model_alias("convoy-fashion", "champion", "1")
    assert "agree again" in published.publish()
    assert published.snapshot()["aliases"] == {"champion": "2"}


def test_a_champion_is_deployed_again_after_deployed_was_deleted(published: Place) -> None:
    shutil.rmtree("deployed")
    shutil.rmtree("bundles")
    assert "version 1, MLflow's champion, serves" in published.publish()
    assert digest_of(Path("deployed/fashion/current")) == deployment.current_digest("fashion")


def test_a_broken_deployed_bundle_is_mended_from_mlflow(published: Place) -> None:
    Path("deployed/fashion/current/model.onnx").write_bytes(b"broken")
    shutil.rmtree("bundles")
    published.publish()
    mended = read_bundle(Path("deployed/fashion/current"))
    assert mended.digest == deployment.current_digest("fashion")
    assert mended.files["model.onnx"] != b"broken"


def test_what_is_not_built_is_named_and_nothing_breaks(place: Place) -> None:
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").unlink()
    said = place.publish()
    assert "stage train@fashion-cnn has not run" in said and "no bundle to publish" in said
    Path("dvc.lock").write_text(lock)
    Path("reports/fashion/pictures/fashion-cnn-confusion.png").unlink()
    said = place.publish()
    assert "reports/fashion/pictures/fashion-cnn-confusion.png is not there" in said
    assert "version 1 promoted" in said


def _evaluate_never_ran(lock: dict[str, Any]) -> None:
    del lock["stages"]["evaluate@fashion"]


def _evaluate_judged_another(lock: dict[str, Any]) -> None:
    lock["stages"]["evaluate@fashion"]["deps"][0]["md5"] = "0" * 32 + ".dir"


def _evaluate_judged_none(lock: dict[str, Any]) -> None:
    del lock["stages"]["evaluate@fashion"]["deps"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_evaluate_never_ran, "stage evaluate@fashion has not run"),
        (_evaluate_judged_another, "stage evaluate@fashion is older than bundles/fashion"),
        (_evaluate_judged_none, "evaluate@fashion has not judged the bundle that export@fashion made"),
    ],
)
def test_a_bundle_that_evaluate_never_judged_is_not_published(
    place: Place, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    change(lock)
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    said = place.publish()
    assert words in said and "no bundle to publish" in said and deployment.current_digest("fashion") is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("bundles/fashion/card.json", "bundles/fashion is not the folder that dvc.lock names"),
        ("reports/fashion/test.json", "reports/fashion/test.json is not the file that dvc.lock names"),
        (
            "reports/fashion/fashion-cnn/metrics.json",
            "reports/fashion/fashion-cnn/metrics.json is not the file that dvc.lock names",
        ),
        ("reports/fashion/choice.json", "reports/fashion/choice.json is not the file that dvc.lock names"),
    ],
)
def test_a_bundle_or_a_figure_that_was_changed_by_hand_is_not_published(place: Place, path: str, words: str) -> None:
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps(content, indent=3))
    said = place.publish()
    assert said.count(words) == 1 and "no bundle to publish" in said and deployment.current_digest("fashion") is None


def test_another_bundle_in_the_place_of_the_judged_one_is_not_published(place: Place) -> None:
    card = tiny_bundles.IMAGE_CARD.model_copy(update={"params": {"another": True}})
    shutil.rmtree("bundles/fashion")
    tiny_bundles.write_image_bundle(Path("bundles/fashion"), card)
    assert "bundles/fashion is not the folder that dvc.lock names" in place.publish()
    assert deployment.current_digest("fashion") is None


def test_what_serves_anew_is_followed_by_a_word_on_the_running_service(place: Place, tmp_path: Path) -> None:
    assert deployment.SERVICE_FOLLOWS in place.publish() and deployment.SERVICE_FOLLOWS not in place.publish()
    built_pipeline.lay(tmp_path, shift=40, version=2)
    assert deployment.SERVICE_FOLLOWS not in place.publish()
    for expected in (True, False):
        assert (deployment.SERVICE_FOLLOWS in place.promote("2", "why not")) == expected


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (1, "stage export@fashion is older than winner/fashion"),
        (-1, "stage choose@fashion is older than candidates/fashion/fashion-cnn"),  # everywhere
    ],
)
def test_a_bundle_older_than_its_weights_is_not_published(place: Place, places: int, words: str) -> None:
    lock = Path("dvc.lock")
    old = Lock.read().outs("choose@fashion")["winner/fashion"]
    head, tail = lock.read_text().split("choose@fashion", 1)
    lock.write_text(head + "choose@fashion" + tail.replace(old, "0" * 32 + ".dir", places))
    said = place.publish()
    assert words in said and "no bundle to publish" in said
    assert deployment.current_digest("fashion") is None


def test_a_repository_that_was_moved_is_told_so(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.publish()
    moved = tmp_path.with_name(tmp_path.name + " moved")
    shutil.copytree(tmp_path, moved, symlinks=True)
    monkeypatch.chdir(moved)
    place.client = mlflow_runs.open_store()
    with pytest.raises(artifacts.StoreMoved, match="MLflow notes absolute paths"):
        place.publish()


def test_experiments_and_runs_in_the_bin_are_brought_back_or_made_anew(published: Place) -> None:
    experiment = mlflow_runs.experiment_of(published.client, "fashion")
    published.client.delete_run(published.client.search_runs([experiment])[0].info.run_id)
    published.client.delete_experiment(experiment)
    published.publish()
    assert len(published.client.search_runs([experiment])) == 4


@pytest.mark.process
def test_a_server_in_between_gives_the_same_as_the_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    words = supervisor.command("mlflow", port)
    with subprocess.Popen(words, env=supervisor.environment(), stderr=subprocess.DEVNULL) as server:
        try:
            uri = f"http://127.0.0.1:{port}"
            assert smoke_request.wait_until_ready([f"{uri}/health"], 60, lambda: server.poll() is not None)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            place.client = mlflow_runs.open_store()
            said = place.publish()
            assert "run fashion-cnn: new" in said and "version 1 promoted" in said
            before = place.snapshot()
            assert "added nothing" in place.publish() and place.snapshot() == before
            shutil.rmtree("deployed")
            shutil.rmtree("bundles")
            with pytest.raises(publish.PublishFailed, match="pull --task fashion` first"):
                place.publish()
            pull.pull(place.client, "fashion", print)
            assert "goes on serving" in place.publish()
            assert digest_of(Path("deployed/fashion/current")) == deployment.current_digest("fashion")
        finally:
            server.terminate()


def test_a_dirty_tree_keeps_its_patch_and_the_first_state_stays(place: Place, tmp_path: Path) -> None:
    built_pipeline.git(tmp_path, "init", "--quiet")
    built_pipeline.git(tmp_path, "add", "params.yaml", "release.yaml", "dvc.lock", "pipelines")
    built_pipeline.git(tmp_path, "commit", "--quiet", "--message", "first")
    before = Path("params.yaml").read_text()
    Path("params.yaml").write_text(before + "# an edit\n")
    place.publish()
    Path("params.yaml").write_text(before + "# another\n")
    place.publish()
    for run in place.client.search_runs([mlflow_runs.experiment_of(place.client, "fashion")]):
        assert run.data.tags["convoy.git_dirty"] == "true"
        assert run.data.tags["mlflow.source.git.commit"] == built_pipeline.git(tmp_path, "rev-parse", "HEAD").strip()
        patch = Path("mlruns/convoy-fashion", run.info.run_id, "artifacts/source.patch").read_text()
        assert "+# an edit" in patch and "another" not in patch


def test_code_that_changed_since_the_training_is_named_and_no_revision_is_claimed(place: Place, tmp_path: Path) -> None:
    built_pipeline.git(tmp_path, "init", "--quiet")
    Path("pipelines/train.py").write_text("# trains otherwise\n")
    built_pipeline.git(tmp_path, "add", "params.yaml", "release.yaml", "dvc.lock", "pipelines")
    built_pipeline.git(tmp_path, "commit", "--quiet", "--message", "after the training")
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "# an edit\n")
    place.publish()
    trained = "tags.`convoy.architecture` != ''"
    runs = place.client.search_runs([mlflow_runs.experiment_of(place.client, "fashion")], trained)
    assert len(runs) == 2
    for run in runs:
        assert run.data.tags["convoy.git_dirty"] == (
            "unknown: changed between training and publishing: pipelines/train.py"
        )
        assert not {"convoy.git_revision", "mlflow.source.git.commit"} & set(run.data.tags)
        assert "source.patch" not in artifacts.list_files(place.client, run.info.run_id)


def test_the_report_of_the_gates_is_in_mlflow_and_is_made_once(published: Place) -> None:
    built_pipeline.lay(Path(), version=2, shift=40)
    published.publish()
    version = published.client.get_model_version("convoy-fashion", "2")
    assert version.tags["gates"] == "failed"
    files = artifacts.list_files(published.client, str(version.run_id), "gates")
    assert set(files) == {version.tags["gates.report"], version.tags["gates.report"].replace(".json", ".png")}
    kept = {path: path.stat().st_mtime_ns for path in Path("deployed/fashion/gates").iterdir()}
    Path("mlruns/convoy-fashion", str(version.run_id), "artifacts", version.tags["gates.report"]).unlink()
    published.client.delete_model_version_tag("convoy-fashion", "2", "decision")
    assert "judging version" not in published.publish()
    assert artifacts.list_files(published.client, str(version.run_id), "gates") == files
    assert {path: path.stat().st_mtime_ns for path in Path("deployed/fashion/gates").iterdir()} == kept


def test_where_params_ask_for_a_person_a_challenger_that_passed_waits(published: Place) -> None:
    built_pipeline.lay(Path(), version=2, promote="asked")
    said = published.publish()
    assert "passed every gate" in said and "python -m convoy promote --task fashion --version 2" in said
    assert published.snapshot()["aliases"] == {"champion": "1", "challenger": "2"}
    built_pipeline.lay(Path(), version=2, promote="automatic")
    assert "version 2 promoted over version 1" in published.publish()


def _change_parity(root: Path) -> None:
    agreement = {"max_difference": 0.2, "class_flips": 1, "n": 100}
    (root / "reports/fashion/parity.json").write_text(json.dumps({"validation": agreement}))
    built_pipeline.write_lock(root, "fashion")


def _change_parity_by_hand(root: Path) -> None:
    path = root / "reports/fashion/parity.json"
    path.write_text(path.read_text().replace("0.2", "0.0") + " ")


def _tighten_limits(root: Path) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["data"]["fashion"]["prepare"]["limits"]["min_per_label"] = 1000
    (root / "params.yaml").write_text(yaml.safe_dump(params))


def _lose_gate_split(root: Path) -> None:
    (root / "data/prepared/fashion/gate.arrow").unlink()


def _change_gate_split(root: Path) -> None:
    (root / "data/prepared/fashion/gate.arrow").write_bytes(b"other rows")


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        (_change_parity, "failed", "parity torch/ONNX: torch and ONNX Runtime differ by up to 0.2 on 100 inputs"),
        (_change_parity_by_hand, "undecided", "reports/fashion/parity.json is not the file that dvc.lock names"),
        (_tighten_limits, "failed", "preflight: data.fashion.prepare.limits.min_per_label is 1000"),
        (_lose_gate_split, "undecided", "data/prepared/fashion/gate.arrow is not there (`dvc checkout` brings back"),
        (_change_gate_split, "undecided", "data/prepared/fashion is not the folder that dvc.lock names"),
    ],
)
def test_a_first_bundle_serves_only_where_all_that_needs_no_champion_is_known_and_holds(
    place: Place, tmp_path: Path, change: Callable[[Path], None], outcome: str, words: str
) -> None:
    change(tmp_path)
    said = place.publish()
    assert words in said and "version 1 stays challenger, nothing serves" in said
    assert deployment.current_digest("fashion") is None
    assert place.client.get_model_version("convoy-fashion", "1").tags["gates"] == outcome
    built_pipeline.lay(tmp_path)
    decided = outcome == "failed"  # what was only unknown is judged again
    assert ("version 1 promoted" in place.publish()) != decided


def test_the_reports_of_the_gates_are_back_after_mlflow_was_deleted(place: Place, tmp_path: Path) -> None:
    place.publish()
    built_pipeline.lay(tmp_path, version=2)
    place.publish()
    shutil.rmtree("mlruns")
    place.client = open_empty_store()
    assert "judging version" not in place.publish()
    (version,) = place.client.search_model_versions("name = 'convoy-fashion'")
    files = artifacts.list_files(place.client, str(version.run_id), "gates")
    assert version.tags["gates.report"] in files and len(files) == 2


def test_what_reads_texts_in_pieces_is_published_and_deployed_like_the_others(place: Place) -> None:
    for task in ("reviews", "reviews-stream"):
        built_pipeline.lay(Path(), task)
    said = place.publish("reviews-stream")
    assert (
        "not published" not in said and "winner reviews-stream-lstm" in said and "new, of reviews-stream-lstm" in said
    )
    release = read_release(Path("deployed/reviews-stream/current"))
    assert release is not None and (release.name, release.version) == ("convoy-reviews-stream", "1")
    version = registry.version_with(place.client, "reviews-stream", "champion")
    assert version is not None and version.tags["architecture"] == "lstm"
    before = place.snapshot("reviews-stream")
    assert "it is complete" in place.publish("reviews-stream")
    assert place.snapshot("reviews-stream") == before
    built_pipeline.lay(Path(), "reviews-stream", version=2, shift=0.01)
    assert "judging version 2" in place.publish("reviews-stream")
    assert deployment.current_digest("reviews") is None


ODD = {
    "fashion": ("/pol/", "C++", "C##"),
    "reviews": ("N/A", ".."),
    "reviews-stream": ('say "hi"\n', "L" * 300),
}


def test_any_labels_are_published_and_served(place: Place) -> None:
    for task, labels in ODD.items():
        built_pipeline.lay(Path(), task, labels=labels)
        assert "version 1 promoted" in place.publish(task)
        version = registry.version_with(place.client, task, "champion")
        assert version is not None
        metrics = place.client.get_run(str(version.run_id)).data.metrics
        counts = {name: value for name, value in metrics.items() if re.fullmatch(r"slices/class/.*/n", name)}
        assert sorted(counts.values()) == list(range(10, 10 + len(labels))), "each label has a metric of its own"
        assert Predictor(Path("deployed", task, "current")).card.labels == labels
        assert "it is complete" in place.publish(task)


def test_a_withdrawn_task_without_an_entry_loses_its_alias(published: Place) -> None:
    _give_up_fashion()
    assert registry.version_with(published.client, "fashion", "champion") is not None
    publish.publish(published.client, print)
    assert registry.version_with(published.client, "fashion", "champion") is None
    assert deployment.current_digest("fashion") is None and deployment.current_digest("reviews") is not None
    assert b"nobody asks for it" in _lines_in_mlflow()


def _give_up_fashion() -> None:
    """Withdraw the images, and take their entries away."""
    built_pipeline.lay(Path(), "reviews")
    withdraw("fashion", "nobody asks for it", print)
    params = yaml.safe_load(Path("params.yaml").read_text())
    for section, name in (("tasks", "fashion"), ("candidates", "fashion-cnn"), ("candidates", "fashion-lstm")):
        del params[section][name]
    Path("params.yaml").write_text(yaml.safe_dump(params))


def _lines_in_mlflow() -> bytes:
    return b"".join(path.read_bytes() for path in Path("mlruns/convoy-decisions").glob("*/artifacts/decisions.jsonl"))


def test_the_alias_of_a_withdrawn_task_goes_last(published: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _give_up_fashion()
    with monkeypatch.context() as patch:
        patch.delattr(MlflowClient, "delete_registered_model_alias")  # as a kill there
        with pytest.raises(publish.PublishFailed):
            publish.publish(published.client, print)
    assert b"nobody asks for it" in _lines_in_mlflow()
    publish.publish(published.client, print)
    assert registry.version_with(published.client, "fashion", "champion") is None


def test_a_withdrawal_that_mlflow_lacks_is_told(published: Place) -> None:
    _give_up_fashion()
    published.client.delete_registered_model_alias("convoy-fashion", "champion")
    publish.publish(published.client, print)
    assert b"nobody asks for it" in _lines_in_mlflow()


@pytest.mark.parametrize("where", ["deployed", "MLflow"])
def test_a_task_of_a_former_name_waits_for_migrate(place: Place, where: str) -> None:
    if where == "deployed":
        Path("deployed/image").mkdir(parents=True)
    else:
        place.client.create_registered_model("convoy-image")
    with pytest.raises(publish.PublishFailed, match="`fashion` was called `image`; run `python -m convoy migrate`"):
        place.publish()
    assert not registry.has_model(place.client, "convoy-fashion") and not Path("deployed/fashion").exists()


def _version_without_run(root: Path) -> None:
    client, digest = mlflow_runs.open_store(), digest_of(root / "bundles/fashion")
    client.create_registered_model("convoy-fashion")
    client.create_model_version("convoy-fashion", "runs:/gone/model", tags={registry.DIGEST: digest})


def _figure_is_no_float(root: Path) -> None:
    report = root / "reports/fashion/test.json"
    slices = {"class": {"a": {"accuracy": 10**400}}}
    report.write_text(json.dumps({**json.loads(report.read_text()), "slices": slices}))
    built_pipeline.write_lock(root, "fashion")


def _link_is_a_folder(root: Path) -> None:
    (root / "deployed/fashion/current").mkdir(parents=True)


def _history_is_changed(root: Path) -> None:
    model = {"version": "1", "digest": "1" * 64}
    for _ in range(2):
        journal.append("fashion", None, Model.model_validate(model), Grounds("refusal", "worse"))
    path = root / "deployed/fashion/decisions.jsonl"
    path.write_bytes(path.read_bytes().replace(b"worse", b"better", 1))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_version_without_run, "refuses: Run with id=None not found"),
        (_figure_is_no_float, "OverflowError: int too large to convert to float"),
        (_link_is_a_folder, "current is not the link that Convoy makes"),
        (_history_is_changed, "decisions.jsonl, line 2: this was not appended to the line before it"),
    ],
)
def test_a_task_that_fails_keeps_no_other(
    place: Place, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    for task in ("reviews", "reviews-stream"):
        built_pipeline.lay(tmp_path, task)
    spoil(tmp_path)
    said: list[str] = []
    with pytest.raises(publish.PublishFailed, match=f"^fashion was not published: .*{re.escape(reason)}"):
        publish.publish(place.client, said.append)
    assert [line for line in said if line.startswith("  not published: ")] and deployment.current_digest(
        "fashion"
    ) is None
    for task in ("reviews", "reviews-stream"):
        assert deployment.current_digest(task) == digest_of(Path("bundles", task))


@pytest.mark.process
def test_the_command_names_the_task_that_failed(place: Place, tmp_path: Path) -> None:
    built_pipeline.lay(tmp_path, "reviews")
    _link_is_a_folder(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "convoy", "publish"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("fashion was not published: ")
    assert deployment.current_digest("reviews") == digest_of(Path("bundles/reviews"))


@pytest.mark.process
def test_up_starts_beside_a_task_that_failed(place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    built_pipeline.lay(tmp_path, "reviews")
    _link_is_a_folder(tmp_path)
    Path("mlflow-store/mlflow.db").unlink()
    assert supervisor._create_store(print) == 0
    assert "fashion was not published: " in capfd.readouterr().err
    assert deployment.current_digest("reviews") == digest_of(Path("bundles/reviews"))


def test_its_stages_are_those_behind_its_bundle_and_reports(place: Place) -> None:
    for task in ("reviews", "reviews-stream"):
        built_pipeline.lay(Path(), task)
    lock = Lock.read()
    shared = ["fetch@reviews", "prepare@reviews", "baselines@reviews"]
    own = [f"{stage}@reviews-stream" for stage in ("choose", "export", "evaluate")]
    assert sorted(lock.to_reports("reviews-stream")) == sorted([*shared, "train@reviews-stream-lstm", *own])
    bundled = lock.to_bundle("reviews")
    assert [name for name in bundled if name.startswith("train@")] == ["train@reviews-cnn", "train@reviews-lstm"]
    assert bundled[:2] == shared[:2] and bundled[-2:] == ["choose@reviews", "export@reviews"]
