"""mlflow.db, its artifacts and deployed/ with its history -> one archive in which every file has its sha256."""

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

from convoy.core import atomic
from convoy.core.paths import DEPLOYED, TASKS
from convoy.core.process import Say
from convoy.tracking import settings

DATABASE, ARTIFACTS, CONTENTS = "mlflow.db", "mlruns", "manifest.json"
# A restore reads the whole list into memory, whoever wrote it. An entry has about 220 bytes: this is 150,000 files.
MAX_CONTENTS_BYTES = 1 << 25
_COMPRESSION = 1  # the quickest: the 86 MB of a small pipeline became 7, in 3 s


class BackupRefused(RuntimeError):
    """There is nothing to back up, it changes while it is read, or the archive's name is taken."""


class Entry(BaseModel):
    """A file of the archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int


class Contents(BaseModel):
    """What an archive holds; stands in it as its last member, since digests are known after the reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_at: str
    artifact_root: str  # MLflow notes absolute paths, so a restore elsewhere has to know the one of before
    files: dict[str, Entry]
    links: dict[str, str]  # what serves: deployed/<task>/current -> a digest; archives of strangers have no links


def back_up(target: Path, say: Say) -> Contents:
    """Write the archive `target`, whole or not at all. The caller holds locks.hold_deployed(), so no bundle changes.

    Raises BackupRefused.
    """
    _check(target)
    with _snapshot(say) as database:
        files = {DATABASE: database} if database else {}
        files |= _files(Path(ARTIFACTS), say)
        for task in TASKS:
            files |= _files(DEPLOYED / task, say)
        links = {str(link): os.readlink(link) for task in TASKS if (link := DEPLOYED / task / "current").is_symlink()}
        if not files:
            raise BackupRefused(f"there is neither {DATABASE} nor {ARTIFACTS}/ nor {DEPLOYED}/ here to back up")
        with atomic.new_file(target) as temporary:
            contents = _write(temporary, files, links)
    say(
        f"{target}: {len(files)} files, {sum(entry.size for entry in contents.files.values()) / 1e6:,.1f} MB of content"
    )
    say("data, weights and DVC's cache are not in it: `dvc push` keeps those, git the rest")
    return contents


def _check(target: Path) -> None:
    if target.exists():
        raise BackupRefused(f"{target} exists; name another file, or move it away")
    if any(target.absolute().is_relative_to(Path(folder).absolute()) for folder in (ARTIFACTS, DEPLOYED)):
        raise BackupRefused(f"{target} would be part of what it backs up; name a file elsewhere")


@contextmanager
def _snapshot(say: Say) -> Iterator[Path | None]:
    """A copy of MLflow's SQLite file by SQLite itself: whole, whoever writes to it meanwhile."""
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
            source, written = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True), sqlite3.connect(copy)
            with closing(source), closing(written):
                source.backup(written)
                (verdict,) = written.execute("PRAGMA quick_check").fetchone()
        except sqlite3.Error as error:
            raise BackupRefused(f"{database} cannot be read ({error}); it is no whole SQLite file") from None
        if verdict != "ok":
            raise BackupRefused(f"{database} is damaged ({verdict}); `python -m convoy publish` makes one anew")
        yield copy


def _files(folder: Path, say: Say) -> dict[str, Path]:
    """Name in the archive -> file, of all that is there; half-written files in deployed/ begin with a dot."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat().st_mode
        if path.is_relative_to(DEPLOYED) and any(part.startswith(".") for part in path.parts):
            continue
        if stat.S_ISREG(kind):
            found[path.as_posix()] = path
        elif not stat.S_ISDIR(kind) and path.name != "current":
            say(f"{path} is no file, it is left out")
    return found


class _Hashing:
    """A file that is hashed while tarfile reads it."""

    def __init__(self, stream: BinaryIO, progress: "tqdm[Any]") -> None:
        self._stream, self._progress = stream, progress
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.digest.update(block)
        self._progress.update(len(block))
        return block


def _write(target: Path, files: dict[str, Path], links: dict[str, str]) -> Contents:
    entries = {}
    total = sum(path.stat().st_size for path in files.values())
    with (
        tqdm(total=total, desc="backup", unit="B", unit_scale=True, disable=None) as progress,
        tarfile.open(target, "w:gz", compresslevel=_COMPRESSION) as tar,
    ):
        for name, path in files.items():
            entries[name] = _add(tar, name, path, progress)
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


def _add(tar: tarfile.TarFile, name: str, path: Path, progress: "tqdm[Any]") -> Entry:
    with path.open("rb") as stream:
        member = tarfile.TarInfo(name)
        found = os.fstat(stream.fileno())
        member.size, member.mtime = found.st_size, found.st_mtime  # gate reports are ordered by it
        hashing = _Hashing(stream, progress)
        try:
            tar.addfile(member, hashing)
        except OSError as error:
            if "end of data" not in str(error):
                raise
            raise BackupRefused(f"{path} changed while it was read; run the backup again") from None
        return Entry(sha256=hashing.digest.hexdigest(), size=member.size)
