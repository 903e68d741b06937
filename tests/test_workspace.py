"""A workspace: the working tree, edits included, in a folder of its own, with other params."""

import subprocess
import sys
from pathlib import Path

import built_pipeline
import pytest
import yaml

from convoy.core.params import ParamsInvalid
from convoy.lineage import workspace

PARAMS = "prepare:  # why\n  max_train: null\n  seed: 0\ntrain: {epochs: 9}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with a tracked, an edited, a new, an ignored and a deleted file, and what a run made."""
    tree = tmp_path / "tree"
    (tree / "src").mkdir(parents=True)
    (tree / "reports").mkdir()
    contents = {"src/kept.py": "1", "src/gone.py": "1", "params.yaml": PARAMS, ".gitignore": "/data/\n/.demo/\n"}
    for name, content in {**contents, "dvc.lock": "original", "reports/test.json": "original"}.items():
        (tree / name).write_text(content)
    built_pipeline.git(tree, "init", "--quiet")
    built_pipeline.git(tree, "add", "--all")
    built_pipeline.git(tree, "commit", "--quiet", "--message", "first")
    (tree / "src/kept.py").write_text("edited")
    (tree / "src/new.py").write_text("new")
    (tree / "src/gone.py").unlink()
    (tree / "data").mkdir()
    (tree / "data/large").write_text("large")
    (tree / "demo.yaml").write_text("prepare: {max_train: 100}\n")
    return tree


def lay(tree: Path) -> Path:
    workspace.create(tree / ".demo", tree / "demo.yaml", tree)
    return tree / ".demo"


@pytest.mark.process
def test_a_workspace_is_the_tree_as_it_is_now_without_what_a_run_made(tree: Path) -> None:
    folder = lay(tree)
    assert (folder / "src/kept.py").read_text() == "edited"
    assert (folder / "src/new.py").read_text() == "new"
    for absent in ("src/gone.py", "data", "dvc.lock", "reports"):
        assert not (folder / absent).exists()
    assert built_pipeline.git(folder, "status", "--porcelain") == ""
    assert built_pipeline.git(folder, "rev-parse", "--show-toplevel").strip() == str(folder)


def test_params_are_overridden_and_the_rest_stays(tree: Path) -> None:
    params = yaml.safe_load((lay(tree) / "params.yaml").read_text())
    assert params == {"prepare": {"max_train": 100, "seed": 0}, "train": {"epochs": 9}}


def test_laying_again_keeps_what_a_run_made_and_follows_the_tree(tree: Path) -> None:
    folder = lay(tree)
    for made in ("dvc.lock", "data/large", "mlflow.db"):
        (folder / made).parent.mkdir(exist_ok=True)
        (folder / made).write_text("made here")
    unchanged = (folder / "src/new.py").stat()
    (tree / "src/kept.py").unlink()
    lay(tree)
    assert not (folder / "src/kept.py").exists()
    assert (folder / "src/new.py").stat().st_mtime_ns == unchanged.st_mtime_ns
    for made in ("dvc.lock", "data/large", "mlflow.db"):
        assert (folder / made).read_text() == "made here"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("prepare: {max_trian: 1}", r"demo.yaml: prepare.max_trian is not a key of params.yaml"),
        ("prepare: 3", r"demo.yaml: prepare is 3, params.yaml has \{'max_train'"),
        ("train: {epochs: {lstm: 3}}", r"demo.yaml: train.epochs is \{'lstm': 3\}, params.yaml has 9"),
    ],
)
def test_an_override_that_params_does_not_have_is_an_error(tree: Path, overrides: str, words: str) -> None:
    (tree / "demo.yaml").write_text(overrides)
    with pytest.raises(ParamsInvalid, match=words):
        lay(tree)


@pytest.mark.parametrize("name", ["params.yaml", "demo.yaml"])
def test_a_key_that_stands_twice_is_refused(tree: Path, name: str) -> None:
    (tree / name).write_text("prepare: {max_train: 1}\ntrain: {epochs: 1}\nprepare: {max_train: 2}\n")
    with pytest.raises(ParamsInvalid, match=rf"{name}: the key prepare stands in line 1 and again in line 3"):
        lay(tree)


def test_a_folder_with_other_things_in_it_is_left_alone(tree: Path) -> None:
    (tree / ".demo").mkdir()
    (tree / ".demo/diary").write_text("mine")
    with pytest.raises(workspace.WorkspaceRefused, match="not empty and no workspace"):
        lay(tree)
    assert (tree / ".demo/diary").read_text() == "mine"


def test_a_tree_without_git_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(workspace.WorkspaceRefused, match="clone Convoy"):
        workspace.create(tmp_path / "folder", None, tmp_path)


@pytest.mark.process
def test_the_copys_own_code_runs_there_and_its_own_mlflow(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    (tree / "src/convoy").mkdir()
    (tree / "src/convoy/__init__.py").write_text("where = 'copy'")
    folder = lay(tree)
    found = workspace.environment(folder)
    assert "MLFLOW_TRACKING_URI" not in found
    asked = [sys.executable, "-c", "import convoy; print(convoy.__file__)"]
    printed = subprocess.run(asked, env=found, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(folder / "src/convoy/__init__.py")
