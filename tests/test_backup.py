"""A backup is whole, or there is none; what it brings back elsewhere is what was kept, and nothing is lost by it."""

import bz2
import errno
import gzip
import hashlib
import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import built_pipeline
import pytest
from dying import end_after
from mlflow_store import open_empty_store

from convoy.operations import backup, restore
from convoy.release import publish
from convoy.sources.items import SourceRefused
from convoy.tracking import mlflow_runs, registry, settings
from convoy.tracking.settings import DATABASE

pytestmark = pytest.mark.mlflow

# What changes a folder while it is restored.
RESTORING = [(os, "rename"), (os, "sync"), (os, "symlink"), (shutil, "rmtree"), (Path, "touch")]
PARTS = ("mlflow-store", "mlruns", "deployed/fashion", "deployed/reviews", "deployed/reviews-stream")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all tasks are built and published, and the archive of it beside; nobody may change either."""
    home = tmp_path_factory.mktemp("home") / "convoy"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = open_empty_store()
        for task in built_pipeline.DATA:
            built_pipeline.lay(home, task)
        publish.publish(client, print)
        backup.back_up(home.parent / "kept.tar.gz", print)
    return home


@pytest.fixture
def archive(published: Path) -> Path:
    return published.parent / "kept.tar.gz"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, as on another machine."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def content(folder: Path) -> dict[str, bytes | str]:
    """Every file with its bytes and every link with its target, below what a backup keeps."""
    paths = [path for part in PARTS for path in [folder / part, *(folder / part).rglob("*")]]
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in paths
        if path.is_symlink() or path.is_file()
    }


def rows(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


def test_all_of_it_comes_back_in_the_same_place_with_the_same_bytes(
    published: Path, archive: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(published, "kept", symlinks=True)
    before = content(published)
    try:
        for part in PARTS:
            shutil.rmtree(published / part)
        monkeypatch.chdir(published)
        restore.restore(archive, False, print)
        assert content(published).keys() == before.keys()
        assert {k: v for k, v in content(published).items() if k != str(DATABASE)} == {
            k: v for k, v in before.items() if k != str(DATABASE)
        }
        assert rows(published / DATABASE) == rows(here / "kept" / DATABASE)
        for task in built_pipeline.DATA:
            for path in (published / "deployed" / task / "gates").iterdir():
                kept = here / "kept" / path.relative_to(published)
                assert path.stat().st_mtime == pytest.approx(kept.stat().st_mtime, abs=1e-4)
        assert not [path for path in published.iterdir() if path.name.startswith(".re")]
    finally:
        shutil.rmtree(published)
        shutil.copytree(here / "kept", published, symlinks=True)


def test_elsewhere_mlflow_finds_its_files_and_publishing_goes_on(published: Path, archive: Path, here: Path) -> None:
    hidden = published.rename(published.with_name("gone"))  # so that nothing here can be read there
    try:
        restore.restore(archive, False, print)
        for task in built_pipeline.DATA:
            built_pipeline.lay(here, task)
        said: list[str] = []
        client = mlflow_runs.open_store()
        publish.publish(client, said.append)
        assert sum("known already" in line for line in said) == 6  # a version and a build of each task
        assert sum("it is complete" in line for line in said) == 8  # five candidates, and the baseline of each task
        for task in built_pipeline.DATA:
            version = registry.version_with(client, task, "champion")
            assert version is not None
            with registry.bundle_of(client, version, []) as bundle:
                assert bundle.digest == os.readlink(here / "deployed" / task / "current")
        assert not any(str(published) in line for line in rows(here / DATABASE))
    finally:
        hidden.rename(published)


def test_what_mlflow_writes_meanwhile_does_not_tear_the_copy(here: Path) -> None:
    begun, stop = threading.Event(), threading.Event()
    DATABASE.parent.mkdir()

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
            backup.back_up(Path(f"kept-{number}.tar.gz"), print)
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        with tarfile.open(f"kept-{number}.tar.gz") as tar:
            kept = tar.extractfile("mlflow.db")  # not `extract`: a Python before 3.11.4 does not know its `filter`
            assert kept is not None
            Path(f"out-{number}.db").write_bytes(kept.read())
        with closing(sqlite3.connect(f"out-{number}.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            counts = connection.execute("SELECT count(*) FROM busy GROUP BY a").fetchall()
            assert set(counts) == {(2,)}


def test_a_database_of_its_own_kind_is_left_to_its_own_tool(
    published: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(published, here, symlinks=True, dirs_exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://convoy:secret@db/mlflow")
    said: list[str] = []
    contents = backup.back_up(Path("kept.tar.gz"), said.append)
    assert "db/mlflow is no SQLite file: back it up with its own tool" in said[0] and "secret" not in "".join(said)
    assert "mlflow.db" not in contents.files and any(name.startswith("deployed/") for name in contents.files)


def test_what_stands_is_refused_or_moved_aside_and_never_deleted(published: Path, archive: Path, here: Path) -> None:
    restore.restore(archive, False, print)
    Path("deployed/fashion/mine").write_text("mine")
    before = content(here)
    with pytest.raises(
        restore.RestoreRefused, match=r"mlflow\.db, mlruns, .*/reviews, .*/reviews-stream in .* --replace"
    ):
        restore.restore(archive, False, print)
    assert content(here) == before
    restore.restore(archive, True, print)
    (aside,) = restore.REPLACED.iterdir()
    assert content(aside) == before
    assert not Path("deployed/fashion/mine").exists()


def without_the_last_bytes(whole: bytes) -> bytes:
    return whole[:-2000]


def with_a_flipped_bit(whole: bytes) -> bytes:
    return rewritten(whole, lambda name, data: data[:-1] + bytes([data[-1] ^ 1]) if name.endswith(".onnx") else data)


def with_a_file_less(whole: bytes) -> bytes:
    return rewritten(whole, lambda name, data: None if name.endswith("model.onnx") else data)


def with_a_file_more(whole: bytes) -> bytes:
    return rewritten(whole, lambda name, data: data, [tarfile.TarInfo("deployed/fashion/more")])


def with_a_file_of_another_folder(whole: bytes) -> bytes:
    return rewritten(whole, lambda name, data: data, [tarfile.TarInfo("src/convoy/core/atomic.py")])


def that_leads_out(whole: bytes) -> bytes:
    return rewritten(whole, lambda name, data: data, [tarfile.TarInfo("deployed/../../out")])


def with_a_link(whole: bytes) -> bytes:
    link = tarfile.TarInfo("deployed/fashion/current")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    return rewritten(whole, lambda name, data: data, [link])


def that_serves(target: str) -> Callable[[bytes], bytes]:
    """With a link `current` to a digest and what follows it."""

    def damage(whole: bytes) -> bytes:
        def lengthen(name: str, data: bytes) -> bytes:
            pattern = rb'("deployed/fashion/current": "[0-9a-f]{64})'
            return re.sub(pattern, lambda found: found[1] + target.encode(), data) if name == "manifest.json" else data

        return rewritten(whole, lengthen)

    damage.__name__ = f"that_serves{target!r}"
    return damage


def that_serves_something_else(whole: bytes) -> bytes:
    swap = b'"deployed/fashion/current": "'

    def lead_away(name: str, data: bytes) -> bytes:
        return data.replace(swap, swap + b"../") if name == "manifest.json" else data

    return rewritten(whole, lead_away)


def without_a_list(whole: bytes) -> bytes:
    return rewritten(whole, lambda name, data: None if name == "manifest.json" else data)


def with_a_list_that_is_too_long(whole: bytes) -> bytes:
    def lengthen(name: str, data: bytes) -> bytes:
        return data + b" " * backup.MAX_CONTENTS_BYTES if name == "manifest.json" else data

    return rewritten(whole, lengthen)


def with_a_database_of_another_kind(whole: bytes) -> bytes:
    junk = b"not a database" * 100
    digest = hashlib.sha256(junk).hexdigest().encode()

    def change(name: str, data: bytes) -> bytes:
        if name == "manifest.json":
            return re.sub(rb'("mlflow.db": \{\s*"sha256": ")[0-9a-f]{64}', rb"\g<1>" + digest, data)
        return junk if name == "mlflow.db" else data

    return rewritten(whole, change)


def packed_by_bzip2(whole: bytes) -> bytes:
    return bz2.compress(gzip.decompress(whole))


def with_a_zip_appended(whole: bytes) -> bytes:
    return gzip.decompress(whole) + a_zip()


def a_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("mlflow.db", b"x")
    return made.getvalue()


def of_something_else(_: bytes) -> bytes:
    return b"not an archive"


def rewritten(
    whole: bytes, change: Callable[[str, bytes], bytes | None], more: list[tarfile.TarInfo] | None = None
) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(whole)) as old, tarfile.open(fileobj=made, mode="w:gz") as new:
        for member in old:
            stream = old.extractfile(member)
            data = change(member.name, stream.read() if stream else b"")
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
        for member in more or []:
            new.addfile(member)
    return made.getvalue()


DAMAGES = (
    without_the_last_bytes,
    with_a_flipped_bit,
    with_a_file_less,
    with_a_file_more,
    with_a_file_of_another_folder,
    that_leads_out,
    with_a_link,
    that_serves_something_else,
    that_serves("/../../.."),
    that_serves("\\n"),
    with_a_list_that_is_too_long,
    with_a_database_of_another_kind,
    packed_by_bzip2,
    with_a_zip_appended,
    without_a_list,
    of_something_else,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_an_archive_that_is_not_the_one_that_was_kept_changes_nothing(
    archive: Path, here: Path, damage: Callable[[bytes], bytes]
) -> None:
    damaged = here.parent / "damaged.tar.gz"
    damaged.write_bytes(damage(archive.read_bytes()))
    assert damaged.read_bytes() != archive.read_bytes()
    DATABASE.parent.mkdir()
    DATABASE.write_text("mine")
    with pytest.raises((restore.RestoreRefused, SourceRefused), match=r"damaged\.tar\.gz"):
        restore.restore(damaged, True, print)
    assert [path for path in here.rglob("*") if path.is_file()] == [here / DATABASE]
    assert DATABASE.read_text() == "mine"


def hostile(members: list[tuple[str, str, bytes]]) -> bytes:
    """A plain tar of names, what those that are links lead to, and contents; and a harmless zip appended to it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, target, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.linkname = len(content), target
            member.type = tarfile.SYMTYPE if target else tarfile.REGTYPE
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue() + a_zip()


def test_restore_refuses_a_zip_appended_to_a_tar(here: Path) -> None:
    beyond, absolute = here.parent.parent / "beyond", here.parent / "absolute"
    names = (f"../../../{beyond.name}", str(absolute), "deployed/fashion/ours")
    tricky = here.parent / "tricky.tar.gz"
    tricky.write_bytes(hostile([(name, "", b"x") for name in names]))
    assert zipfile.is_zipfile(tricky)
    with pytest.raises(SourceRefused, match="could lead out"):
        restore.restore(tricky, False, print)
    assert not beyond.exists() and not absolute.exists() and not list(here.iterdir())
    tricky.write_bytes(a_zip())
    with pytest.raises(SourceRefused, match="is no tar"):
        restore.restore(tricky, False, print)


UNPACKED = {
    "a name beyond": [("mlruns/../../beyond", "", b"x")],
    "a name that is none of ours": [("dvc.yaml", "", b"x")],
    "a link": [("deployed/fashion/link", "/etc", b"")],
    "a file twice": [("deployed/fashion/one", "", b"x"), ("deployed/fashion/one", "", b"y")],
    "a list twice": [("manifest.json", "", b"x"), ("manifest.json", "", b"y")],
    "a file under two names": [("mlruns/1/a", "", b"x"), ("mlruns/1/./a", "", b"y")],
    "a name with an empty part": [("mlruns/1//a", "", b"x")],
    "folders without end": [("mlruns/" + "a/" * 1500 + "a", "", b"x")],
    "a bomb": [(f"deployed/fashion/{number}", "", bytes(1 << 20)) for number in range(3)],
}


@pytest.mark.parametrize("name", UNPACKED)
def test_each_member_is_checked_again_when_unpacked(here: Path, name: str) -> None:
    """By itself, as where the file has changed since it was looked through."""
    tricky = here.parent / "tricky.tar.gz"
    tricky.write_bytes(gzip.compress(hostile(UNPACKED[name])))
    with pytest.raises(restore.RestoreRefused, match="nothing was changed"):
        restore._unpack(tricky, Path("deep/staging"))
    written = [path for path in here.parent.rglob("*") if path.is_file() and path != tricky]
    assert all(path.is_relative_to(here / "deep/staging") for path in written)


# Names of empty files, each with the values of its pax header.
UNWRITABLE: dict[str, dict[str, dict[str, str]]] = {
    "a file that is a folder too": {"mlruns/x": {}, "mlruns/x/y": {}},
    "a folder that is a file too": {"mlruns/x/y": {}, "mlruns/x": {}},
    "a file below a link": {"deployed/fashion/current/x": {}},
    "a name that is too long": {"mlruns/" + "a" * 300: {}},
    "a file of no time": {"mlruns/x": {"mtime": "nan"}},
    "a file of the end of time": {"mlruns/x": {"mtime": "1e400"}},
    "a file of long after": {"mlruns/x": {"mtime": "1e30"}},
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_an_archive_that_cannot_be_written_changes_nothing(archive: Path, here: Path, name: str) -> None:
    """Such as is listed in its own list, with the right sha256."""
    entry = b'"%s": {"sha256": "' + hashlib.sha256(b"").hexdigest().encode() + b'", "size": 0}, '
    listed = b"".join(entry % one.encode() for one in UNWRITABLE[name])
    more = [tarfile.TarInfo(one) for one in UNWRITABLE[name]]
    for member in more:
        member.pax_headers = UNWRITABLE[name][member.name]

    def change(name: str, data: bytes) -> bytes:
        return data.replace(b'"files": {', b'"files": {' + listed) if name == "manifest.json" else data

    damaged = here.parent / "damaged.tar.gz"
    damaged.write_bytes(rewritten(archive.read_bytes(), change, more))
    with pytest.raises(restore.RestoreRefused, match=r"damaged\.tar\.gz.*nothing was changed"):
        restore.restore(damaged, False, print)
    assert not list(here.iterdir())


def test_a_full_disk_is_no_fault_of_an_archive(archive: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "utime", fail)
    with pytest.raises(OSError, match="No space left"):
        restore.restore(archive, False, print)
    assert not list(here.iterdir())


def test_a_backup_too_large_to_restore_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mlruns").mkdir()
    Path("mlruns/file").touch()
    monkeypatch.setattr(backup, "MAX_CONTENTS_BYTES", 100)
    with pytest.raises(backup.BackupRefused, match=r"convoy gc"):
        backup.back_up(Path("kept.tar.gz"), print)
    assert not Path("kept.tar.gz").exists()


def test_a_kill_at_any_step_is_made_good_by_the_same_command(
    archive: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)  # of all that this machine writes: seconds where others do
    restore.restore(archive, False, print)
    wanted = content(here)
    ends = []
    for step in range(40):
        for path in here.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        DATABASE.parent.mkdir()
        DATABASE.write_text("mine")
        Path("deployed/fashion").mkdir(parents=True)
        Path("deployed/fashion/old").write_text("mine")
        ends.append(end_after(step, lambda: RESTORING, lambda: restore.restore(archive, True, lambda line: None)))
        if ends[-1]:
            restore.restore(archive, True, lambda line: None)
        assert content(here) == wanted
        assert not list(here.glob(".restore-*"))
        moved = sorted(path.relative_to(path.parents[-3]) for path in Path(".replaced").rglob("*") if path.is_file())
        assert {path.name for path in moved} == {"mlflow.db", "old"} and len(moved) == 2
        if ends[-1] == 0:
            break
    assert ends[-1] == 0 and len(ends) > 8 and set(ends[:-1]) == {9}


@pytest.mark.parametrize("beside", ["", "-wal"])
def test_a_restore_puts_an_older_database_aside(archive: Path, here: Path, beside: str) -> None:
    older = Path(f"{settings.OLDER_DATABASE}{beside}")
    settings.OLDER_DATABASE.write_text("mine")
    older.write_text("mine")
    with pytest.raises(restore.RestoreRefused, match=r"mlflow\.db in .* would be replaced"):
        restore.restore(archive, False, print)
    restore.restore(archive, True, print)
    (aside,) = restore.REPLACED.iterdir()
    assert (aside / older).read_text() == "mine" and not older.exists()
    assert settings.database() == here / DATABASE and "experiments" in " ".join(rows(DATABASE))


def test_a_full_disk_leaves_no_archive(published: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(published, here, symlinks=True, dirs_exist_ok=True)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip.GzipFile, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: .*kept\.tar\.gz"):
        backup.back_up(Path("kept.tar.gz"), print)
    assert not list(here.glob("*kept*"))


def test_the_verbs_say_in_one_line_what_they_refuse(archive: Path, here: Path) -> None:
    def convoy(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", "convoy", *words], capture_output=True, text=True)

    empty = convoy("backup", "kept.tar.gz")
    assert empty.returncode == 1 and "neither mlflow.db nor mlruns/ nor deployed/" in empty.stderr
    assert convoy("restore", str(archive), "--into", "new").returncode == 0
    again = convoy("restore", str(archive), "--into", "new")
    assert again.returncode == 1 and again.stderr.count("\n") == 1 and "--replace" in again.stderr
    assert not list(here.glob("kept*"))
