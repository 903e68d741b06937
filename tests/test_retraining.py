"""New data at its origin, one command: it is built, published, and told in Markdown; the workflow runs what exists."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import built_pipeline
import pytest
import typer
import yaml
from dvc.repo import Repo
from mlflow_store import open_empty_store

from convoy.cli import maintain
from convoy.operations import retrain
from convoy.release import publish

pytestmark = pytest.mark.mlflow
ROOT = Path(__file__).parents[1]
# One stage in place of all: it lays what the pipeline would, another winner for each line of the data.
BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import built_pipeline
version = len(Path("incoming/data.csv").read_text().splitlines())
for task in ("fashion", "reviews"):
    built_pipeline.lay(Path(), task, version=version)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose data was imported by DVC, and its origin beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    built_pipeline.git(folder, "init", "--quiet")
    (tmp_path / "origin.csv").write_text("one\n")
    with warnings.catch_warnings(), Repo.init() as repo:
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries that DVC uses
        Path("incoming").mkdir()
        repo.imp_url(str(tmp_path / "origin.csv"), "incoming/data.csv")
    for task in ("fashion", "reviews"):
        built_pipeline.write_params(folder, task)
    return folder


@pytest.mark.process
def test_new_data_becomes_a_new_version_and_a_report(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []
    real = retrain._run_module

    def run(*words: str, shown: bool = True) -> tuple[str, int]:
        """All for real, but for the stages, which take half an hour, and publishing, which is called here."""
        commands.append(words)
        if words == ("dvc", "repro"):
            exec(BUILD.format(tests=str(ROOT / "tests")), {})
        elif words == ("convoy", "publish"):
            said: list[str] = []
            publish.publish(client, said.append)
            return "\n".join(said), 0
        elif words[0] == "dvc":
            return real(*words, shown=shown)
        return "", 0

    monkeypatch.setattr(retrain, "_run_module", run)
    client = open_empty_store()
    retrain.write_report(client, Path("first.md"), retrain.champions(client), retrain.rebuild(print)[0])
    (place.parent / "origin.csv").write_text("one\ntwo\n")
    before = retrain.champions(client)
    retrain.write_report(client, Path("second.md"), before, retrain.rebuild(print)[0])
    assert Path("incoming/data.csv").read_text() == "one\ntwo\n"
    assert commands[4:] == [
        ("dvc", "update", "incoming/data.csv.dvc"),
        ("convoy", "verify", "--mend"),
        ("dvc", "repro"),
        ("convoy", "publish"),
    ]
    assert "| champion before |" not in Path("first.md").read_text()
    told = Path("second.md").read_text()
    for task in ("fashion", "reviews"):
        section = told.split(f"## {task}\n")[1].split("\n## ")[0]
        assert re.search(r"\| champion before \| 1 \| [0-9a-f]{12} \|", section)
        assert re.search(r"\| built, serves now \| 2 \| [0-9a-f]{12} \|", section)
        assert f"{task}: version 2 against version 1" in section and "| latency | passed | " in section
        assert re.search(r"Decision: promotion from version 1 .* to version 2 .*: it passed every gate", section)
    assert "```\nfashion:\n" in told


def test_a_worse_one_is_reported_with_the_reason_and_the_command(place: Path) -> None:
    client = open_empty_store()
    for version, shift in ((1, 0), (2, 40)):
        built_pipeline.lay(place, "fashion", version=version, shift=shift)
        before = retrain.champions(client)
        publish.publish(client, print, ["fashion"])
    retrain.write_report(client, Path("report.md"), before, "fashion:\n  what it said")
    told = Path("report.md").read_text()
    assert "| built, does not serve | 2 |" in told and re.search("Decision: refusal from version 1 .* accuracy: ", told)
    assert "| accuracy | failed | " in told
    assert "`python -m convoy promote --task fashion --version 2`" in told
    assert "There is no bundle to publish: " in told.split("## reviews")[1]


def test_a_step_that_fails_ends_it_with_what_it_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(retrain.RetrainingFailed, match="`nothing` ended with 1"):
        retrain._run_required("nothing")
    assert "No module named nothing" in capfd.readouterr().err


def test_a_publish_that_fails_is_told_and_reported(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All for real, but for the stages; a folder in the place of the link keeps the images from being deployed."""
    built_pipeline.lay(place, "fashion")
    Path("deployed/fashion/current").mkdir(parents=True)
    monkeypatch.setattr(retrain, "_run_required", lambda *words: None)
    with pytest.raises(typer.Exit):
        maintain.retrain(Path("report.md"))
    assert "`convoy publish` ended with 1" in capfd.readouterr().err
    assert "fashion was not published: " in Path("report.md").read_text()


@pytest.mark.process
def test_the_workflow_runs_commands_that_exist() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/retrain.yml").read_text())
    assert set(workflow[True]) == {"schedule", "workflow_dispatch"}  # YAML takes `on` for true
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    script = "\n".join(step.get("run", "") for step in steps)
    for step in steps:
        if "run" in step:
            subprocess.run(["bash", "-n", "-c", step["run"]], check=True)
        else:
            assert re.fullmatch(r"actions/(checkout|setup-python|cache)@[0-9a-f]{40}", step["uses"])
    verbs = re.findall(r"-m convoy (\w+)(.*)", script)
    assert [verb for verb, _ in verbs] == ["retrain"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", script, re.MULTILINE)) == {"set-up"} <= targets
    for module, words in [("convoy", verbs[0]), *(("dvc", found) for found in re.findall(r"-m dvc (\w+)(.*)", script))]:
        known = subprocess.run([sys.executable, "-m", module, words[0], "--help"], capture_output=True, text=True)
        assert known.returncode == 0, words
        for option in re.findall(r"--[a-z-]+", words[1]):
            parts = ("add",) if words[0] == "remote" else ()
            command = [sys.executable, "-m", module, words[0], *parts, "--help"]
            assert option in subprocess.run(command, capture_output=True, text=True).stdout, (words, option)
