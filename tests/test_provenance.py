"""dvc.lock and git: what made what, and what is out of date."""

import json
import shutil
from pathlib import Path

import built_pipeline
import pytest

from convoy.tracking import provenance
from convoy.tracking.build_state import read_build_state
from convoy.tracking.provenance import Lock, LockInvalid, same_file

FOLDER_MD5 = "17b4925363317c72f4739ef59ae8c378.dir"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_absent_lock_is_a_pipeline_that_never_ran() -> None:
    assert Lock.read() == Lock({})
    built_pipeline.write_params(Path(), "fashion")
    built = read_build_state("fashion", Lock.read())
    assert built.runs == {} and built.winner is None
    assert "stage train@fashion-cnn has not run" in built.missing


def test_a_lock_that_cannot_be_read_is_named_with_its_remedy(place: Path) -> None:
    Path("dvc.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(LockInvalid, match=r"dvc.lock is not a DVC lock file .*`git checkout dvc.lock`"):
        Lock.read()


def test_a_run_is_known_by_the_fingerprint_of_its_training_alone(place: Path) -> None:
    built_pipeline.lay(place)
    runs = read_build_state("fashion", Lock.read()).runs
    for candidate, run in runs.items():
        written = Path(f"reports/fashion/{candidate}/metrics.json").read_text()
        assert run.key == json.loads(written)["training"]["fingerprint"]
    curves = Path("reports/fashion/fashion-cnn/curves.csv")
    curves.write_text(curves.read_text().replace(",1.5\n", ",2.5\n"))  # elapsed_s: the same on a slower machine
    built_pipeline.write_lock(place, "fashion")
    assert read_build_state("fashion", Lock.read()).runs["fashion-cnn"].key == runs["fashion-cnn"].key


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "reports/fashion/fashion-cnn/metrics.json is not there"),
        ("{}", "reports/fashion/fashion-cnn/metrics.json is not the file that dvc.lock names"),
    ],
)
def test_without_its_fingerprint_a_run_is_missing_and_so_is_the_winner(
    place: Path, content: str | None, words: str
) -> None:
    built_pipeline.lay(place)
    path = Path("reports/fashion/fashion-cnn/metrics.json")
    path.unlink() if content is None else path.write_text(content)
    built = read_build_state("fashion", Lock.read())
    assert set(built.runs) == {"fashion-lstm"} and built.winner is None
    assert [line for line in built.missing if words in line]


def test_a_stage_is_outdated_when_another_made_its_input_anew(place: Path) -> None:
    built_pipeline.lay(place)
    lock = Lock.read()
    assert lock.outdated("train@fashion-cnn") == []
    lock.stages["choose@fashion"]["outs"][0]["md5"] = "0" * 32 + ".dir"
    assert lock.outdated("export@fashion") == ["winner/fashion"]
    assert lock.outdated("choose@fashion") == []


def test_a_part_of_an_output_is_compared_with_what_lies_here(place: Path) -> None:
    built_pipeline.lay(place)
    lock = Lock.read()
    Path("data/prepared/fashion/train.arrow").write_bytes(b"prepared anew")
    assert lock.outdated("train@fashion-cnn") == ["data/prepared/fashion/train.arrow"]
    shutil.rmtree("data")
    assert lock.outdated("train@fashion-cnn") == []


def test_an_input_of_several_outputs_needs_all_of_them(place: Path) -> None:
    built_pipeline.lay(place)
    weights = Path("candidates/fashion/fashion-cnn/weights.safetensors")
    weights.write_bytes(b"trained anew")
    assert Lock.read().outdated("choose@fashion") == ["candidates/fashion"]
    shutil.rmtree("candidates/fashion/fashion-lstm")  # as where `dvc pull` brought the others alone
    assert Lock.read().outdated("choose@fashion") == []


def test_a_file_is_compared_by_its_content(place: Path) -> None:
    built_pipeline.lay(place)
    [(path, md5)] = [item for item in Lock.read().outs("choose@fashion").items() if item[0].endswith(".json")]
    assert same_file(Path(path), md5)
    Path(path).write_text("{}")
    assert not same_file(Path(path), md5) and not same_file(Path("absent"), md5)


def test_a_folder_is_compared_by_the_hash_that_dvc_makes_of_it(place: Path) -> None:
    """Expected: md5 of the list that `dvc add` keeps for a folder with these two files."""
    Path("folder/below").mkdir(parents=True)
    Path("folder/b.txt").write_text("b\n")
    Path("folder/below/a.txt").write_text("a\n")
    assert same_file(Path("folder"), FOLDER_MD5)
    Path("folder/b.txt").write_text("c\n")
    assert not same_file(Path("folder"), FOLDER_MD5) and not same_file(Path("absent"), FOLDER_MD5)


def test_code_that_is_not_what_a_stage_ran_is_named(place: Path) -> None:
    built_pipeline.lay(place)
    assert Lock.read().changed_code(["train@fashion-cnn"]) == []
    Path("pipelines/train.py").write_text("# edited\n")
    assert Lock.read().changed_code(["prepare@fashion", "train@fashion-cnn"]) == ["pipelines/train.py"]
    Path("pipelines/train.py").unlink()
    assert Lock.read().changed_code(["train@fashion-cnn"]) == ["pipelines/train.py"]


def test_what_git_refuses_is_said_in_a_sentence(place: Path) -> None:
    _commit(place)
    Path(".git/index.lock").write_text("")  # harmless: the index is not the user's
    assert provenance.read_git_state() is not None
    tree = built_pipeline.git(place, "rev-parse", "HEAD^{tree}").strip()
    Path(".git/objects", tree[:2], tree[2:]).unlink()
    with pytest.raises(provenance.GitFailed, match=r"git read-tree failed: .*\w"):
        provenance.read_git_state()


def test_outside_a_repository_and_before_the_first_commit_there_is_no_state(place: Path) -> None:
    assert provenance.read_git_state() is None
    built_pipeline.git(place, "init", "--quiet")
    assert provenance.read_git_state() is None


def test_what_the_pipeline_writes_does_not_make_the_tree_dirty(place: Path) -> None:
    _commit(place)
    built_pipeline.lay(place, version=2)
    state = provenance.read_git_state()
    assert state is not None and (state.dirty, state.patch) == (False, None)


def test_the_patch_brings_edits_new_and_deleted_sources_back_and_nothing_else(place: Path) -> None:
    _commit(place)
    Path("src/edited.py").write_text("edited = 1\n")
    Path("src/deleted.py").unlink()
    Path("src/new with space.py").write_text("new = 1\n")
    Path("src/binary.py").write_bytes(bytes(range(256)))
    Path("secret.env").write_text("password\n")
    before = built_pipeline.git(place, "status", "--porcelain")
    state = provenance.read_git_state()
    assert state is not None and state.dirty and state.patch is not None
    assert b"password" not in state.patch
    assert built_pipeline.git(place, "status", "--porcelain") == before  # the user's own index is left alone
    clone = place / "clone"
    built_pipeline.git(place, "clone", "--quiet", ".", "clone")
    (clone / "source.patch").write_bytes(state.patch)
    built_pipeline.git(clone, "apply", "source.patch")
    for name in ("edited.py", "new with space.py", "binary.py"):
        assert (clone / "src" / name).read_bytes() == (place / "src" / name).read_bytes()
    assert not (clone / "src/deleted.py").exists()


def test_a_patch_too_large_for_a_record_is_not_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _commit(place)
    monkeypatch.setattr(provenance, "MAX_PATCH_BYTES", 10)
    Path("src/edited.py").write_text("edited = 1\n")
    state = provenance.read_git_state()
    assert state is not None and state.dirty and state.patch is None


def _commit(place: Path) -> None:
    built_pipeline.lay(place)
    Path("src").mkdir()
    for name in ("edited", "deleted"):
        Path("src", f"{name}.py").write_text(f"{name} = 0\n")
    built_pipeline.git(place, "init", "--quiet")
    built_pipeline.git(place, "add", "src", "pipelines", "dvc.lock", "reports", "params.yaml", "release.yaml")
    built_pipeline.git(place, "commit", "--quiet", "--message", "first")
