"""Back to what served before, by a person's word; who was second is told so; and a rollback stays."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import built_pipeline
import pytest
from dying import end_after
from kept_folder import KeptFolder, use_store
from test_main import convoy
from typer.testing import CliRunner

from convoy.__main__ import app
from convoy.bundles.bundle import read_bundle, read_release
from convoy.operations import status
from convoy.operations.doctor import stores
from convoy.operations.doctor.doctor import Check
from convoy.release import deployment, journal, registry_sync, rollback
from convoy.release import promote as promoting
from convoy.release import publish as publishing
from convoy.release.decision import ApprovalRefused
from convoy.release.publish import PublishFailed
from convoy.release.rollback import withdraw
from convoy.tracking import artifacts, mlflow_runs
from convoy.tracking.registry import version_with

pytestmark = pytest.mark.mlflow


def publish() -> str:
    said: list[str] = []
    publishing.publish(mlflow_runs.open_store(), said.append, ["fashion"])
    return "\n".join(said)


def roll_back(number: str | None = None, reason: str = "") -> str:
    said: list[str] = []
    rollback.rollback(said.append, "fashion", number, reason, deployment.current_digest("fashion"))
    promoting.align_and_update_mlflow(mlflow_runs.open_store(), "fashion")
    return "\n".join(said)


def kinds() -> list[str]:
    return [decision.kind for decision in journal.read("fashion")]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> KeptFolder:
    """Version 1 was deployed, and version 2, which is built, took over."""

    def fill() -> None:
        for version in (1, 2):
            built_pipeline.lay(Path(), version=version)
            publish()

    return KeptFolder(tmp_path_factory.mktemp("published"), fill)


@pytest.fixture(autouse=True)
def place(published: KeptFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    return published.restore(monkeypatch)


def test_a_rollback_goes_to_the_champion_before_and_stays_through_repro_checkout_and_publish(place: Path) -> None:
    second = deployment.current_digest("fashion")
    assert "version 1" in roll_back(reason="it answers worse")
    first = deployment.current_digest("fashion")
    release = read_release(Path("deployed/fashion/current"))
    assert first != second and release is not None and (release.digest, release.version) == (first, "1")
    assert release.promoted_at == journal.read("fashion")[-1].at
    champion = version_with(mlflow_runs.open_store(), "fashion", "champion")
    assert champion is not None and champion.tags["digest"] == first
    for version in (2, 1, 2):  # as `dvc checkout` and `dvc exp run` change what is built
        built_pipeline.lay(place, version=version)
        said = publish()
        assert deployment.current_digest("fashion") == first
    assert "it was decided on before (rollback from version 2" in said and "it answers worse" in said
    assert "python -m convoy promote --task fashion --version 2 --reason '...'" in said


def test_a_rollback_stays_when_mlflow_is_deleted_and_when_deployed_is(monkeypatch: pytest.MonkeyPatch) -> None:
    roll_back(reason="it answers worse")
    first, lines = deployment.current_digest("fashion"), journal.read_history("fashion").lines
    use_store(monkeypatch, None)
    shutil.rmtree("mlruns")
    assert "it was decided on before (rollback" in publish()
    assert deployment.current_digest("fashion") == first
    assert journal.read_history("fashion").lines == lines and lines_in_mlflow() == lines
    shutil.rmtree("deployed")
    assert "MLflow's champion, serves" in publish()
    assert deployment.current_digest("fashion") == first and kinds() == ["pull"]


def test_without_deployed_a_new_history_begins(place: Path) -> None:
    roll_back(reason="it answers worse")
    promote("2", "it was right")
    former, serves = journal.read_history("fashion").lines, deployment.current_digest("fashion")
    client = mlflow_runs.open_store()
    versions = {each.version: each.tags["digest"] for each in client.search_model_versions("name = 'convoy-fashion'")}
    shutil.rmtree("deployed")
    for _ in range(2):
        publish()
        assert deployment.current_digest("fashion") == serves and kinds() == ["pull"]
        assert lines_in_mlflow() == (*journal.read_history("fashion").lines, *former)
        found = client.search_model_versions("name = 'convoy-fashion'")
        assert {each.version: each.tags["digest"] for each in found} == versions
    [run] = client.search_runs([client.get_experiment_by_name(registry_sync.EXPERIMENT).experiment_id])
    shown = sorted(str(row[3]) for row in mlflow_table(run.info.run_id)["data"])
    assert shown == ["forced", "promotion", "promotion", "pull", "rollback"]
    for experiment in client.search_experiments(filter_string="name LIKE 'convoy-%'"):
        keys = [run.data.tags[mlflow_runs.RUN_KEY] for run in client.search_runs([experiment.experiment_id])]
        assert len(keys) == len(set(keys)), "a run is made once"


def test_without_deployed_a_refused_bundle_still_waits(place: Path) -> None:
    built_pipeline.lay(place, shift=40, version=3)
    publish()
    serves = deployment.current_digest("fashion")
    shutil.rmtree("deployed")
    assert "it was decided on before (refusal" in publish()
    assert deployment.current_digest("fashion") == serves and kinds() == ["pull"]
    with pytest.raises(ApprovalRefused, match=r"version 3 .* needs --reason"):
        promote("3")


def test_an_unreadable_copy_in_mlflow_is_not_overwritten(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("deployed")
    former = lines_in_mlflow()
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "read", Mock(side_effect=PermissionError("no right to read it")))
        with pytest.raises(PublishFailed, match="no right to read it"):
            publish()
    assert lines_in_mlflow() == former
    publish()
    assert lines_in_mlflow()[-len(former) :] == former


def lines_in_mlflow() -> tuple[bytes, ...]:
    """What MLflow's copy of the history has, as a person finds it in the UI."""
    [shown] = Path("mlruns", registry_sync.EXPERIMENT).glob(f"*/artifacts/{registry_sync.LINES}")
    return tuple(shown.read_bytes().splitlines())


def test_mlflow_shows_every_decision_as_a_table_and_as_tags_and_again_the_same(place: Path) -> None:
    roll_back(reason="it answers worse")
    client = mlflow_runs.open_store()
    experiment = client.get_experiment_by_name(registry_sync.EXPERIMENT)
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "fashion" and run.info.status == "FINISHED"
    told = [decision.told for decision in journal.read("fashion")]
    tags = client.get_model_version("convoy-fashion", "2").tags
    assert tags["decision"] == tags["decision.0005"] == told[2] and tags["decision.0003"] == told[1]
    table = mlflow_table(run.info.run_id)
    assert table["columns"][:5] == ["number", "at", "who", "kind", "from"] and len(table["data"]) == 3
    registry_sync.update_mlflow(client, "fashion")
    [again] = client.search_runs([experiment.experiment_id])
    assert again.data.tags == run.data.tags and again.info.run_id == run.info.run_id


def mlflow_table(run_id: str) -> dict[str, list[list[object]]]:
    import mlflow

    frame = mlflow.MlflowClient().load_table(experiment_id_of(run_id), registry_sync.TABLE, run_ids=[run_id])
    return {"columns": list(frame.columns), "data": frame.values.tolist()}


def experiment_id_of(run_id: str) -> str:
    return str(mlflow_runs.open_store().get_run(run_id).info.experiment_id)


def test_what_was_rolled_back_serves_again_only_with_a_reason(place: Path) -> None:
    second = deployment.current_digest("fashion")
    roll_back()
    for again in (lambda: promote("2"), lambda: roll_back("2")):
        with pytest.raises(ApprovalRefused, match=r"version 2 .* needs --reason"):
            again()
    promote("2", "mended what asked it")
    assert deployment.current_digest("fashion") == second and kinds()[-1] == "forced"


def promote(number: str, reason: str = "") -> None:
    seen = deployment.current_digest("fashion")
    promoting.promote(mlflow_runs.open_store(), lambda line: None, "fashion", number, reason, seen)


def test_there_is_no_way_back_before_the_first_nor_to_what_never_served(place: Path) -> None:
    roll_back()
    with pytest.raises(ApprovalRefused, match="names no champion of fashion before this one"):
        roll_back()
    built_pipeline.lay(place, shift=40, version=3)
    publish()
    with pytest.raises(ApprovalRefused, match=r"version 3 .* has never served"):
        roll_back("3")
    with pytest.raises(ApprovalRefused, match="no version 9 of fashion is known"):
        roll_back("9")
    assert kinds() == ["promotion", "promotion", "rollback", "refusal"]


def test_a_bundle_that_is_gone_is_told_and_nothing_changes(place: Path) -> None:
    before = deployment.current_digest("fashion")
    first = journal.read("fashion")[0].after.digest
    (deployment.folder_of("fashion", first) / "model.onnx").write_bytes(b"half")
    with pytest.raises(ApprovalRefused, match=r"is not whole.*promote --task fashion --version 1"):
        roll_back()
    assert deployment.current_digest("fashion") == before and kinds() == ["promotion", "promotion"]


def test_of_two_at_once_the_first_wins_and_both_are_recorded(place: Path) -> None:
    seen = deployment.current_digest("fashion")
    promote("1")
    first = deployment.current_digest("fashion")
    built_pipeline.lay(place, shift=40, version=3)
    publish()
    with pytest.raises(ApprovalRefused, match=r"version 3 .* was not let serve: while this was asked for"):
        promoting.promote(mlflow_runs.open_store(), lambda line: None, "fashion", "3", "why not", seen)
    with pytest.raises(ApprovalRefused, match="while this was asked for"):
        rollback.rollback(lambda line: None, "fashion", None, "", seen)
    assert deployment.current_digest("fashion") == first
    assert kinds()[2:] == ["promotion", "refusal", "superseded", "superseded"]


def test_what_else_changed_deployed_is_noted_and_goes_on_serving(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = journal.read("fashion")[0].after.digest
    deployment.point_current_to("fashion", first)
    publish()
    assert deployment.current_digest("fashion") == first and kinds()[-1] == "found"
    built_pipeline.lay(place)
    journal.path_of("fashion").unlink()
    use_store(monkeypatch, None)
    shutil.rmtree("mlruns")
    with pytest.raises(PublishFailed, match="for a new history move the file away"):
        publish()
    forget()
    publish()
    assert kinds() == ["found"] and journal.read("fashion")[0].why == "it serves; no history before"


def forget() -> None:
    """What a person does where a history is lost for good; as in an older copy of deployed/."""
    path = Path("deployed/fashion/current/release.json")
    content = json.loads(path.read_text())
    del content["history"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("lost", [1, 2, 5, "half a line", "another line"])
def test_a_history_cut_at_its_end_is_noticed(place: Path, lost: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    built_pipeline.lay(place, shift=40, version=3)
    publish()  # is refused
    path = journal.path_of("fashion")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 5
    changed = lines[-1].replace(b'"refusal"', b'"forced"')
    rest = {"half a line": [*lines[:-1], lines[-1][:50]], "another line": [*lines[:-1], changed]}
    path.write_bytes(b"".join(lines[:-lost] if isinstance(lost, int) else rest[lost]))
    told = "the last lines were removed or changed"
    with pytest.raises(journal.DecisionsBroken, match=told):
        roll_back()
    assert told in str(status.read_status(1)[0].last_decision)
    done = CliRunner().invoke(app, ["history", "--task", "fashion"])
    assert (
        done.exit_code == 1 and told in done.output and "the file of a backup (docs/operate.md, Backup)" in done.output
    )
    left = path.read_bytes()
    with pytest.raises(PublishFailed, match=told):
        publish()
    assert path.read_bytes() == left, "nothing comes back from MLflow"
    path.write_bytes(whole)
    publish()
    assert path.read_bytes() == whole and journal.read("fashion")[-1].kind == "refusal"


def test_a_history_older_than_mlflow_s_is_told(place: Path) -> None:
    """With the release of before, as where deployed/ is put back from an older copy."""
    path = journal.path_of("fashion")
    assert not lacking()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    forget()
    [finding] = lacking()
    assert finding.state == "warning" and "has decisions that deployed/fashion/decisions.jsonl lacks" in finding.says
    shutil.rmtree("deployed")
    [finding] = lacking()
    assert "put back a newer backup (docs/operate.md, Backup)" in finding.remedy
    publish()
    assert not lacking(), "a new history has begun"


def lacking() -> list[Check]:
    """What the doctor finds of histories."""
    return [each for each in stores.check_mlflow() if each.about == "history fashion"]


def test_another_machine_s_lines_are_no_loss(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines with a history of their own, of which each appends after they have parted."""
    own, other = Path("deployed/fashion"), Path("deployed-of-the-other")
    shutil.copytree(own, other, symlinks=True)
    promote("1", "asked for on this one")
    own.rename("deployed-own")
    other.rename(own)
    promote("1", "asked for on the other")
    promote("2")
    for mine in (own, Path("deployed-own")):
        if mine != own:
            own.rename(other)
            mine.rename(own)
        publish()
        assert not lacking() and len(journal.read_history("fashion").lines) > 4
        assert {*journal.read_history("fashion").lines} <= {*lines_in_mlflow()}


def test_a_kill_before_the_release_names_a_line_is_no_alarm(place: Path) -> None:
    serves = journal.deployed_model("fashion")
    assert serves is not None
    before = deployment.read_history_anchor("fashion")

    def decide() -> None:
        journal.append("fashion", serves, serves, journal.Grounds("superseded", "by hand"))

    folder = deployment.folder_of("fashion", serves.digest)
    for step in range(2):
        assert end_after(step, lambda: [(Path, "replace")], decide) == 9
        assert before is not None and deployment.read_history_anchor("fashion") == before
        assert len(journal.read_history("fashion").lines) == before.lines + step + 1
        assert read_bundle(folder).digest == serves.digest  # a temporary file in it would make it invalid
    time = folder.stat().st_mtime_ns
    decide()
    noted = deployment.read_history_anchor("fashion")
    assert before is not None and noted is not None and noted.lines == before.lines + 3
    assert folder.stat().st_mtime_ns == time  # services load again what has a new time


def test_a_decision_whose_bundle_is_gone_before_it_was_followed_is_undone_and_told(place: Path) -> None:
    first, second = (decision.after for decision in journal.read("fashion"))
    roll_back()
    release = read_release(deployment.folder_of("fashion", second.digest))
    assert release is not None
    journal.append("fashion", first, second, journal.Grounds("forced", "asked for"))
    shutil.rmtree(deployment.folder_of("fashion", second.digest))
    said = publish()
    assert "was cut off and is undone" in said and deployment.current_digest("fashion") == first.digest
    history = journal.read_history("fashion")
    assert history.unfinished is None and history.champion is not None and history.champion.digest == first.digest
    assert (against := history.against(second.digest)) and against.kind == "rollback", "it still stands"


def test_a_withdrawn_model_is_gone_until_a_person_wants_it_back(place: Path) -> None:
    second = deployment.current_digest("fashion")
    assert withdraw("fashion", "nobody asks for it", print) and not withdraw("fashion", "again", print)
    assert deployment.current_digest("fashion") is None and journal.read_history("fashion").champion is None
    publish()
    assert deployment.current_digest("fashion") is None and kinds()[-1] == "withdrawn"
    assert version_with(mlflow_runs.open_store(), "fashion", "champion") is None
    roll_back()
    assert deployment.current_digest("fashion") == second and kinds()[-1] == "rollback"
    champion = version_with(mlflow_runs.open_store(), "fashion", "champion")
    assert champion is not None and champion.tags["digest"] == second


def test_a_withdrawal_that_was_cut_off_is_completed(place: Path) -> None:
    deployed = journal.deployed_model("fashion")
    assert deployed is not None
    journal.append("fashion", deployed, deployed, journal.Grounds("withdrawn", "nobody asks for it"))
    publish()
    assert deployment.current_digest("fashion") is None and journal.read_history("fashion").unfinished is None


@pytest.mark.process
def test_a_rollback_takes_a_command_and_no_mlflow_and_two_at_once_make_one(place: Path) -> None:
    words = [sys.executable, "-m", "convoy", "rollback", "--task", "fashion", "--reason", "both want it"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert kinds().count("rollback") == 1 and kinds()[-1] in ("rollback", "superseded")
    first = deployment.current_digest("fashion")
    promoted = convoy("promote", "--task", "fashion", "--version", "2", "--reason", "it was right")
    assert promoted.returncode == 0, promoted.stderr
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text("half an edit: [")  # keeps nobody from a rollback
    away = convoy("rollback", "--task", "fashion", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    Path("params.yaml").write_text(params)
    assert away.returncode == 0 and "serves from deployed/fashion/current again" in away.stdout
    assert "the next `python -m convoy publish` tells MLflow" in away.stderr and "Traceback" not in away.stderr
    assert deployment.current_digest("fashion") == first
    told = convoy("history", "--task", "fashion")
    assert told.returncode == 0 and "both want it" in told.stdout and "it was right" in told.stdout
    assert convoy("publish").returncode == 0
    champion = version_with(mlflow_runs.open_store(), "fashion", "champion")
    assert champion is not None and champion.tags["digest"] == first
