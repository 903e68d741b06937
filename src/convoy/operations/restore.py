"""An archive of a backup -> mlflow.db, mlruns/ and deployed/ in this folder, after every byte of it has been proven."""

import errno
import hashlib
import os
import re
import shutil
import sqlite3
import tarfile
import zlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import ValidationError
from tqdm import tqdm

from convoy.core import atomic
from convoy.core.atomic import sha256_of
from convoy.core.paths import DEPLOYED, TASKS
from convoy.core.process import Say
from convoy.operations.backup import ARTIFACTS, CONTENTS, DATABASE, MAX_CONTENTS_BYTES, Contents
from convoy.sources import archives
from convoy.sources.items import SourceRefused
from convoy.tracking import settings

REPLACED = Path(".replaced")  # what stood here before; nothing of ours ever empties it
PARTS = (DATABASE, ARTIFACTS, *(f"{DEPLOYED}/{task}" for task in TASKS))  # each appears in one step
_BESIDE = ("-wal", "-shm")  # SQLite's own files beside a database
_PROVEN = "proven"
_BLOCK = 1 << 20
_LINK = re.compile(rf"{DEPLOYED}/(?:{'|'.join(TASKS)})/current")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIMES_S = (-(2**31), 2**34)  # of a file: 1901 to 2514, more than the usual file systems hold
_MOST_FOLDERS = 100  # below one another; shutil and pathlib call themselves once for each, Python allows 1,000
# What is wrong with the names in an archive where a file system refuses them; any other errno tells of the disk.
_OF_THE_NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError)


class RestoreRefused(RuntimeError):
    """An archive that is damaged or none of ours, or a place where something stands."""


def restore(archive: Path, replace: bool, say: Say) -> None:
    """Bring back all of `archive` into the working directory; what stands there is moved to .replaced/ if so asked.

    Nothing changes before all is unpacked and proven; killed after that, the same command goes on. The caller holds
    locks.hold_deployed(). Raises RestoreRefused, SourceRefused for an archive that could do harm.
    """
    staging = Path(f".restore-{_key(archive)}")
    if not (staging / _PROVEN).exists():
        shutil.rmtree(staging, ignore_errors=True)
        _refuse_what_stands(_parts(_names(archive)), replace)
        try:
            contents = _unpack(archive, staging)
            _move_paths(staging, contents.artifact_root)
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            if isinstance(error, sqlite3.Error):
                reason = f"{archive}: its {DATABASE} is no database of MLflow's ({error}); nothing was changed"
                raise RestoreRefused(reason) from None
            if _is_of_the_archive(error):
                raise RestoreRefused(f"{archive} cannot be unpacked ({error}); nothing was changed") from None
            raise
        os.sync()  # before the mark, which promises all of it
        (staging / _PROVEN).touch()
        say(f"{archive}, made {contents.made_at}: {len(contents.files)} files, every one as its sha256 says")
    left = [part for part in PARTS if (staging / part).exists()]
    _refuse_what_stands(left, replace)
    aside = REPLACED / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
    for part in left:
        stood = _stands(part)
        if stood:
            _put_aside(part, aside)
        _place(part).parent.mkdir(exist_ok=True)
        (staging / part).rename(_place(part))
        atomic.sync(_place(part).parent)
        say(f"{part} is back" + (f"; what stood there is in {aside}" if stood else ""))
    shutil.rmtree(staging)
    if aside.exists():
        say("start an MLflow server that runs here anew: it may still have the database open that is in .replaced/")


def _key(archive: Path) -> str:
    return sha256_of(archive)[:16]


def _names(archive: Path) -> list[str]:
    """The names in an archive that is readable to its end and could do no harm."""
    try:
        return archives.refuse_hostile_tar(archive)
    except _DAMAGE as error:
        if isinstance(error, FileNotFoundError | SourceRefused):
            raise
        raise RestoreRefused(f"{archive} is damaged or no backup ({error}); nothing was changed") from None


def _is_of_the_archive(error: BaseException) -> bool:
    """Whether an error while unpacking tells of the archive; a full disk, say, is no fault of it."""
    if isinstance(error, OSError):
        return error.errno is None or error.errno in _OF_THE_NAMES  # gzip's have no errno
    return isinstance(error, _DAMAGE) and not isinstance(error, SourceRefused)


def _parts(names: list[str]) -> list[str]:
    return [part for part in PARTS if any(name == part or name.startswith(f"{part}/") for name in names)]


def _place(part: str) -> Path:
    """Where a part of an archive belongs here; archives hold the database by its bare name."""
    return settings.default_database() if part == DATABASE else Path(part)


def _stands(part: str) -> bool:
    path = _place(part)
    return any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()


def _refuse_what_stands(parts: list[str], replace: bool) -> None:
    standing = [part for part in parts if _stands(part)]
    if standing and not replace:
        raise RestoreRefused(
            f"{', '.join(standing)} in {Path().absolute()} would be replaced; with --replace what stands there is "
            f"moved to {REPLACED}/, or name another folder with --into"
        )


def _put_aside(part: str, aside: Path) -> None:
    place = _place(part)
    (aside / place).parent.mkdir(parents=True, exist_ok=True)
    place.rename(aside / place)
    if part == DATABASE:
        for suffix in _BESIDE:
            beside = place.with_name(part + suffix)
            if beside.exists():
                beside.rename(aside / beside)


def _unpack(archive: Path, staging: Path) -> Contents:
    """Write every file below `staging` and compare it with the archive's own list.

    Each member is checked again here, since the file may have changed after `_names` has read it.
    """
    found: dict[str, str] = {}
    listing = b""
    room = archives.most_unpacked(archive)
    progress = tqdm(total=archive.stat().st_size, desc="restore", unit="B", unit_scale=True, disable=None)
    mode = archives.tar_mode(archive)
    with progress, archive.open("rb") as raw, tarfile.open(fileobj=raw, mode=mode) as tar:
        for member in tar:
            room -= member.size
            fault = "more than the archive may unpack to" if room < 0 else _fault_of(member, staging)
            if fault or member.name in found or (member.name == CONTENTS and listing):
                raise RestoreRefused(f"{archive}: {member.name!r} is {fault or 'there twice'}; nothing was changed")
            stream = tar.extractfile(member)
            assert stream is not None  # a regular file has one
            if member.name == CONTENTS:
                listing = stream.read()
            else:
                found[member.name] = _write(staging / member.name, stream)
                os.utime(staging / member.name, (member.mtime, member.mtime))
            progress.update(raw.tell() - progress.n)
    return _compare(archive, listing, found, staging)


def _fault_of(member: tarfile.TarInfo, staging: Path) -> str:
    """Why a member must not be written; empty where nothing speaks against it."""
    if not member.isreg() or member.issparse():
        return "no regular file"
    if archives.leads_out(member.name) or not (member.name == CONTENTS or _parts([member.name])):
        return "no name that a backup has"
    if (plain := os.path.normpath(member.name)) != member.name:  # and would be written over it
        return f"another way to write {plain!r}"
    if member.name.count("/") > _MOST_FOLDERS:
        return f"below more than {_MOST_FOLDERS} folders"
    if not _TIMES_S[0] <= member.mtime < _TIMES_S[1]:  # NaN is not, too
        return f"of no time that a file can have ({member.mtime:g} s after 1970)"
    if member.name == CONTENTS and member.size > MAX_CONTENTS_BYTES:
        return f"longer than {MAX_CONTENTS_BYTES} bytes"
    if hasattr(tarfile, "data_filter"):  # Python has it since 3.11.4
        try:
            tarfile.data_filter(member, str(staging))
        except tarfile.FilterError as error:
            return f"refused by Python's tarfile ({error})"
    return ""


def _write(path: Path, content: IO[bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        while block := content.read(_BLOCK):
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()


def _compare(archive: Path, listing: bytes, found: dict[str, str], staging: Path) -> Contents:
    try:
        contents = Contents.model_validate_json(listing)
    except ValidationError:
        raise RestoreRefused(f"{archive} has no readable {CONTENTS}: it is no backup of Convoy's") from None
    wanted = {name: entry.sha256 for name, entry in contents.files.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    wrong += [name for name in found if not _parts([name])]
    wrong += [
        name for name, target in contents.links.items() if not (_LINK.fullmatch(name) and _DIGEST.fullmatch(target))
    ]
    if wrong:
        raise RestoreRefused(
            f"{archive}: {wrong[0]!r} is not what its {CONTENTS} says ({len(wrong)} such); nothing was changed, "
            "take another backup"
        )
    for name, target in contents.links.items():
        Path(staging, name).parent.mkdir(parents=True, exist_ok=True)
        Path(staging, name).symlink_to(target)
    return contents


def _move_paths(staging: Path, before: str) -> None:
    """MLflow notes the absolute path of its artifacts; here they lie elsewhere than where the backup was made."""
    now, database = settings.artifact_root().as_uri(), staging / DATABASE
    if now == before or not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            for column in [row[1] for row in columns if row[2].upper().startswith(("VARCHAR", "TEXT"))]:
                for old, new in ((before, now), (_path(before), _path(now))):
                    connection.execute(
                        f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                        f'WHERE "{column}" = ? OR substr("{column}", 1, ?) = ?',
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )


def _path(uri: str) -> str:
    return uri.removeprefix("file://")
