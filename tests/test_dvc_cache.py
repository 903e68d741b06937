"""DVC's gc keeps what git's names lead to and what the runs that stay were made from; a real DVC repository."""

import hashlib
import subprocess
import sys
import warnings
from pathlib import Path

import built_pipeline
import pytest
import yaml
from dvc.repo import Repo

from convoy.operations.cleanup import dvc_cache

pytestmark = pytest.mark.process  # a process of DVC's for each gc


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose one output was `1`, `2` and `3` in commits and is `now`; `dirty` was never in any."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    built_pipeline.git(folder, "init", "--quiet", "--initial-branch", "main")
    with warnings.catch_warnings(), Repo.init() as repo:
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries that DVC uses
        for content in ("1", "2", "3", "dirty", "now"):
            (folder / "data").mkdir(exist_ok=True)
            (folder / "data/file").write_text(content)
            repo.add("data")
            if content in "123":
                built_pipeline.git(folder, "add", ".")
                built_pipeline.git(folder, "commit", "--quiet", "--message", content)
    return folder


def kept() -> set[str]:
    """The contents whose object is still there."""
    contents = {md5_of(content): content for content in ("1", "2", "3", "dirty", "now")}
    objects = {path.parent.name + path.name for path in Path(".dvc/cache/files/md5").glob("??/*")}
    return {contents[md5] for md5 in objects if md5 in contents}


def md5_of(content: str) -> str:
    return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()


def folder_of(revision: str) -> str:
    """The md5 of the folder `data` as a revision has it, which leads to its files."""
    return str(yaml.safe_load(built_pipeline.git(Path(), "show", f"{revision}:data.dvc"))["outs"][0]["md5"])


def test_what_nothing_names_is_counted_and_then_removed(repository: Path) -> None:
    built_pipeline.git(repository, "tag", "first", "HEAD~2")
    said: list[str] = []
    dvc_cache.collect(set(), {md5_of("dirty"), "0" * 32, f"{'0' * 32}.dir"}, True, said.append)
    assert kept() == {"1", "2", "3", "dirty", "now"}
    dvc_cache.collect(set(), {md5_of("dirty"), "0" * 32, f"{'0' * 32}.dir"}, False, said.append)
    assert kept() == {"1", "3", "dirty", "now"}  # of the tag, the branch, the run, the folder
    assert "objects go" in said[0] and "objects are gone" in said[1]
    assert said[0].split(" objects")[0] == said[1].split(" objects")[0]
    assert not dvc_cache.ROOTS.exists()


def test_what_a_run_was_made_from_stays_by_its_hash_or_its_revision(repository: Path) -> None:
    Path("dvc.lock").write_text(
        yaml.safe_dump({"stages": {"a": {"outs": [{"path": "data", "md5": folder_of("HEAD~1")}]}}})
    )
    built_pipeline.git(repository, "add", "dvc.lock")
    built_pipeline.git(repository, "commit", "--quiet", "--message", "made 2")
    revision = built_pipeline.git(repository, "rev-parse", "HEAD").strip()
    built_pipeline.git(repository, "rm", "--quiet", "dvc.lock")
    built_pipeline.git(repository, "commit", "--quiet", "--message", "not any more")
    dvc_cache.collect({revision, "0" * 40}, {folder_of("HEAD~4")}, False, print)
    assert kept() == {"1", "2", "3", "now"}


def test_a_worktree_that_shares_the_cache_keeps_what_it_has(repository: Path) -> None:
    built_pipeline.git(repository, "worktree", "add", "--quiet", "--detach", "../other", "HEAD~1")
    cache = str(repository / ".dvc/cache")
    subprocess.run([sys.executable, "-m", "dvc", "cache", "dir", "--local", cache], cwd="../other", check=True)
    dvc_cache.collect(set(), set(), False, print)
    assert kept() == {"2", "3", "now"}


def test_a_cache_that_others_may_use_is_left_alone(repository: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "cache", "dir", "--local", str(repository.parent)], check=True)
    said: list[str] = []
    dvc_cache.collect(set(), set(), False, said.append)
    assert "others may use it" in said[0] and kept() == {"1", "2", "3", "dirty", "now"}


def test_what_stops_dvc_is_told_in_a_line(repository: Path) -> None:
    Path("dvc.yaml").write_text("stages: 7\n")
    with pytest.raises(dvc_cache.CacheRefused, match="`dvc gc --workspace` failed"):
        dvc_cache.collect(set(), set(), False, print)
    assert kept() == {"1", "2", "3", "dirty", "now"}


def test_tags_of_mlflow_name_neither_paths_nor_options(repository: Path) -> None:
    beyond, cache = repository.parent / "beyond", Path(".dvc/cache").resolve()
    beyond.touch()
    outside = Path(f"{dvc_cache.ROOTS.parent}{beyond}.dvc")
    outside.parent.mkdir(parents=True)
    Path("here:.").mkdir()
    dvc_cache._create_roots(cache, {f"..{beyond}", md5_of("1")})  # its first two characters are a folder of the cache
    assert [path.name for path in dvc_cache.ROOTS.glob("?*.dvc")] == [f"{md5_of('1')}.dvc"]
    assert not outside.exists()
    dvc_cache.collect({"--output=here"}, set(), True, print)
    assert not list(Path("here:.").iterdir())
