"""The recipe of docs/operate.md keeps a state whole and brings all of it back, here or elsewhere."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import backup_recipe
import built_pipeline
import pytest
from mlflow_store import open_empty_store
from typer.testing import CliRunner

from convoy.__main__ import app
from convoy.core import locks
from convoy.operations import status
from convoy.release import journal, publish
from convoy.tracking import mlflow_runs, registry
from convoy.tracking.settings import DATABASE

pytestmark = pytest.mark.mlflow
FOLDERS = ("deployed", "mlflow-store", "mlruns")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all tasks are built and published, and its backup beside it; nobody may change either."""
    home = tmp_path_factory.mktemp("home") / "convoy"
    kept = home.parent / "kept"
    for folder in (home, kept):
        folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = open_empty_store()
        for task in built_pipeline.DATA:
            built_pipeline.lay(home, task)
        publish.publish(client, print)
        backup_recipe.do("keep", kept, home)
    return home


@pytest.fixture
def kept(published: Path) -> Path:
    return published.parent / "kept"


@pytest.fixture
def moved(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, as on another machine: what was published cannot be read there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    hidden = published.rename(published.with_name("gone"))
    yield folder
    hidden.rename(published)


def content(folder: Path) -> dict[str, bytes | str]:
    """Every file with its bytes and every link with its target, but for the database and locks."""
    paths = [path for part in FOLDERS for path in (folder / part).rglob("*")]
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in paths
        if (path.is_symlink() or path.is_file()) and path.name not in (DATABASE.name, ".lock")
    }


def rows(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


def test_all_comes_back_with_the_same_bytes(published: Path, kept: Path, moved: Path) -> None:
    gone = published.with_name("gone")
    published.mkdir()
    try:
        backup_recipe.do("restore", kept, published)
        assert content(published) == content(gone)
        assert rows(published / DATABASE) == rows(gone / DATABASE)
        for path in (gone / "deployed").glob("*/gates/*"):  # their times order the gate reports
            again = published / path.relative_to(gone)
            assert again.stat().st_mtime == pytest.approx(path.stat().st_mtime, abs=1)
    finally:
        shutil.rmtree(published)


def test_elsewhere_mlflow_finds_files_and_publishing_goes_on(published: Path, kept: Path, moved: Path) -> None:
    backup_recipe.do("restore", kept, moved)
    for task in built_pipeline.DATA:
        built_pipeline.lay(moved, task)
    said: list[str] = []
    client = mlflow_runs.open_store()
    publish.publish(client, said.append)
    assert sum("known already" in line for line in said) == 6  # a version and a build of each task
    assert sum("it is complete" in line for line in said) == 8  # five candidates, and the baseline of each task
    for task in built_pipeline.DATA:
        version = registry.version_with(client, task, "champion")
        assert version is not None
        with registry.bundle_of(client, version, []) as bundle:
            assert bundle.digest == os.readlink(moved / "deployed" / task / "current")
    assert not any(str(published) in line for line in rows(moved / DATABASE))


def test_status_history_and_trace_tell_the_same(published: Path, kept: Path, moved: Path) -> None:
    def told() -> tuple[object, ...]:
        traced = CliRunner().invoke(app, ["trace", "fashion/1", "--json"])
        assert traced.exit_code == 0, traced.output
        here = str(Path.cwd())
        found = json.loads(traced.stdout.replace(here, "HERE"))
        states = [json.dumps(each, default=str).replace(here, "HERE") for each in status.read_status(1)]
        return found, states, [journal.read(task) for task in built_pipeline.DATA]

    gone = published.with_name("gone")
    gone.rename(published)
    os.chdir(published)
    before = told()
    os.chdir(moved)
    published.rename(gone)
    backup_recipe.do("restore", kept, moved)
    for name in ("params.yaml", "dvc.lock", "bundles", "reports", "candidates"):
        source = gone / name
        shutil.copytree(source, name) if source.is_dir() else shutil.copy(source, name)
    assert told() == before


def test_what_stands_is_refused_and_unchanged(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "deployed").mkdir()
    (tmp_path / "deployed/mine").write_text("mine")
    assert backup_recipe.run("restore", kept, tmp_path).returncode == 1
    assert (tmp_path / "deployed/mine").read_text() == "mine"
    assert [path.name for path in (tmp_path / "deployed").iterdir()] == ["mine"] and not (tmp_path / DATABASE).exists()


@pytest.mark.parametrize("name", ["mlflow.db", "files.tar.gz", "folder"])
def test_a_damaged_copy_changes_nothing(kept: Path, tmp_path: Path, name: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(kept, damaged)
    whole = (damaged / name).read_bytes()
    (damaged / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    folder = tmp_path / "here"
    folder.mkdir()
    refused = backup_recipe.run("restore", damaged, folder)
    assert refused.returncode == 1 and f"{name}: FAILED" in refused.stdout and not list(folder.iterdir())


def test_a_backup_of_nothing_fails(tmp_path: Path) -> None:
    for folder in ("kept", "empty/deployed"):
        (tmp_path / folder).mkdir(parents=True)
    done = backup_recipe.run("keep", tmp_path / "kept", tmp_path / "empty")
    assert done.returncode != 0 and not (tmp_path / "kept/SHA256SUMS").exists()


def test_a_backup_waits_for_a_running_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "kept"
    for folder in (kept, Path("mlruns"), DATABASE.parent):
        folder.mkdir()
    with closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute("CREATE TABLE done (a INTEGER)")
    backup = threading.Thread(target=backup_recipe.run, args=("keep", kept, tmp_path))
    with locks.hold_deployed(print):
        backup.start()
        backup.join(1)
        assert backup.is_alive() and not list(kept.iterdir())
    backup.join(60)
    assert (kept / "SHA256SUMS").exists()


def test_a_write_meanwhile_does_not_tear_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begun, stop = threading.Event(), threading.Event()
    for folder in (DATABASE.parent, Path("deployed"), Path("mlruns")):
        folder.mkdir()

    def write() -> None:
        with closing(sqlite3.connect(DATABASE, timeout=30)) as connection:
            connection.execute("CREATE TABLE busy (a INTEGER, b INTEGER)")
            number = 0
            while not stop.wait(0.001):
                with connection:  # two rows at once: a torn copy would have one of them
                    connection.execute("INSERT INTO busy VALUES (?, 0)", (number,))
                    connection.execute("INSERT INTO busy VALUES (?, 1)", (number,))
                number += 1
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(30)
        for number in range(3):
            Path(f"kept-{number}").mkdir()
            backup_recipe.do("keep", tmp_path / f"kept-{number}", tmp_path)
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        with closing(sqlite3.connect(f"kept-{number}/mlflow.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            counts = connection.execute("SELECT count(*) FROM busy GROUP BY a").fetchall()
            assert set(counts) == {(2,)}


@pytest.mark.pipeline
def test_the_cache_of_dvc_comes_back(tmp_path: Path) -> None:
    here, elsewhere, kept = (tmp_path / name for name in ("here", "elsewhere", "kept"))
    for folder in (here, elsewhere, kept):
        folder.mkdir()
    dvc(here, "init", "--no-scm", "--quiet")
    (here / "data").write_bytes(b"data" * 1000)
    dvc(here, "add", "--quiet", "data")
    backup_recipe.do("keep_cache", kept, here)
    dvc(elsewhere, "init", "--no-scm", "--quiet")
    shutil.copy(here / "data.dvc", elsewhere)
    shutil.rmtree(here)
    backup_recipe.do("restore_cache", kept, elsewhere)
    assert (elsewhere / "data").read_bytes() == b"data" * 1000


def dvc(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, check=True)


@pytest.mark.parametrize("words", [("backup", "kept.tar.gz"), ("restore", "kept.tar.gz", "--into", "new")])
def test_the_former_verbs_name_the_recipe(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2 and "docs/operate.md" in done.stderr and done.stderr.count("\n") == 1
