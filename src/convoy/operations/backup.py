"""Backs up mlflow.db, its artifacts and deployed/ with its history in one archive with a sha256 of every file."""

import hashlib
import io
import os
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from convoy.core import atomic, tasks
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.tracking import settings

DATABASE, ARTIFACTS, CONTENTS = "mlflow.db", "mlruns", "manifest.json"
# A restore reads the whole list into memory, from any author. An entry has about 220 bytes: this is 150,000 files.
MAX_CONTENTS_BYTES = 1 << 25
_COMPRESSION = 1  # the fastest: 86 MB of a small pipeline became 7, in 3 s


class BackupRefused(RuntimeError):
    """There is nothing to back up, a file changes while it is read, or the archive exists."""


class Entry(BaseModel):
    """A file of the archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int


class Contents(BaseModel):
    """The content of an archive; its last member, since the digests are known after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_at: str
    artifact_root: str  # MLflow stores absolute paths: a restore elsewhere needs the old one
    files: dict[str, Entry]
    links: dict[str, str]  # the deployed models: deployed/<task>/current -> a digest; the tar itself has no links


def back_up(target: Path, say: Say) -> Contents:
    """Write the archive `target`, whole or not at all. The caller holds locks.hold_deployed(), so no bundle changes.

    Raises BackupRefused.
    """
    _refuse_target(target)
    with _copy_database(say) as database:
        files = {DATABASE: database} if database else {}
        files |= _find_files(Path(ARTIFACTS), say)
        names = sorted({*tasks.deployed(), *tasks.with_history()})
        for task in names:
            files |= _find_files(DEPLOYED / task, say)
        links = {str(link): os.readlink(link) for task in names if (link := DEPLOYED / task / "current").is_symlink()}
        if not files:
            raise BackupRefused(f"there is neither {DATABASE} nor {ARTIFACTS}/ nor {DEPLOYED}/ here to back up")
        with atomic.new_file(target) as temporary:
            contents = _write_archive(temporary, files, links)
    say(
        f"{target}: {len(files)} files, {sum(entry.size for entry in contents.files.values()) / 1e6:,.1f} MB of content"
    )
    say("data, weights and DVC's cache are not in it: `dvc push` keeps those, git the rest")
    return contents


def _refuse_target(target: Path) -> None:
    if target.exists():
        raise BackupRefused(f"{target} exists; name another file, or move it away")
    if any(target.absolute().is_relative_to(Path(folder).absolute()) for folder in (ARTIFACTS, DEPLOYED)):
        raise BackupRefused(f"{target} would be part of what it backs up; name a file elsewhere")


@contextmanager
def _copy_database(say: Say) -> Iterator[Path | None]:
    """A copy of MLflow's SQLite file by SQLite itself: whole, even while others write to it."""
    database = settings.database()
    if database is None:
        say(
            f"{settings.tracking_uri().partition('@')[2] or settings.tracking_uri()} is no SQLite file: "
            "back it up with its own tool (pg_dump, mysqldump), and its artifacts where it keeps them"
        )
    if database is None or not database.exists():
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, DATABASE)
        try:
            source, destination = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True), sqlite3.connect(copy)
            with closing(source), closing(destination):
                source.backup(destination)
                (verdict,) = destination.execute("PRAGMA quick_check").fetchone()
        except sqlite3.Error as error:
            raise BackupRefused(f"{database} cannot be read ({error}); it is no whole SQLite file") from None
        if verdict != "ok":
            raise BackupRefused(f"{database} is damaged ({verdict}); `python -m convoy publish` makes one anew")
        yield copy


def _find_files(folder: Path, say: Say) -> dict[str, Path]:
    """Name in the archive -> file, without files in deployed/ that begin with a dot: they are half written."""
    files = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_relative_to(DEPLOYED) and any(part.startswith(".") for part in path.parts):
            continue
        if stat.S_ISREG(mode):
            files[path.as_posix()] = path
        elif not stat.S_ISDIR(mode) and path.name != "current":
            say(f"{path} is no file, it is left out")
    return files


class _HashingReader:
    """A file that is hashed while tarfile reads it."""

    def __init__(self, stream: BinaryIO, progress: "tqdm[Any]") -> None:
        self._stream, self._progress = stream, progress
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.digest.update(block)
        self._progress.update(len(block))
        return block


def _write_archive(target: Path, files: dict[str, Path], links: dict[str, str]) -> Contents:
    entries = {}
    total = sum(path.stat().st_size for path in files.values())
    with (
        tqdm(total=total, desc="backup", unit="B", unit_scale=True, disable=None) as progress,
        tarfile.open(target, "w:gz", compresslevel=_COMPRESSION) as tar,
    ):
        for name, path in files.items():
            entries[name] = _add_file(tar, name, path, progress)
        contents = Contents(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            artifact_root=settings.artifact_root().as_uri(),
            files=entries,
            links=links,
        )
        listing = atomic.to_json(contents.model_dump(mode="json"))
        if len(listing) > MAX_CONTENTS_BYTES:
            raise BackupRefused(
                f"{len(files)} files are more than an archive's {CONTENTS} can list ({len(listing)} bytes, at most "
                f"{MAX_CONTENTS_BYTES}); `python -m convoy gc` removes what is old"
            )
        member = tarfile.TarInfo(CONTENTS)
        member.size = len(listing)
        tar.addfile(member, io.BytesIO(listing))
    return contents


def _add_file(tar: tarfile.TarFile, name: str, path: Path, progress: "tqdm[Any]") -> Entry:
    with path.open("rb") as stream:
        member = tarfile.TarInfo(name)
        status = os.fstat(stream.fileno())
        member.size, member.mtime = status.st_size, status.st_mtime  # orders the gate reports
        hashing = _HashingReader(stream, progress)
        try:
            tar.addfile(member, hashing)
        except OSError as error:
            if "end of data" not in str(error):
                raise
            raise BackupRefused(f"{path} changed while it was read; run the backup again") from None
        return Entry(sha256=hashing.digest.hexdigest(), size=member.size)
