"""Restores mlflow.db, mlruns/ and deployed/ from a backup, after every byte of the archive is proven."""

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

from convoy.core import atomic, tasks
from convoy.core.atomic import sha256_of
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.operations.backup import ARTIFACTS, CONTENTS, DATABASE, MAX_CONTENTS_BYTES, Contents
from convoy.sources import archives
from convoy.sources.items import SourceRefused
from convoy.tracking import settings

REPLACED = Path(".replaced")  # what was here before; Convoy never empties it
_DATABASE_SUFFIXES = ("-wal", "-shm")  # SQLite's own files beside a database
_PROVEN = "proven"
_BLOCK = 1 << 20
_DEPLOYED_PART = re.compile(rf"({DEPLOYED}/{tasks.NAME.pattern})(?:/.*)?", re.DOTALL)
_LINK = re.compile(rf"{DEPLOYED}/{tasks.NAME.pattern}/current")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MTIMES_S = (-(2**31), 2**34)  # of a file: 1901 to 2514, more than the usual file systems hold
_MAX_FOLDERS = 100  # nested; shutil and pathlib recurse once for each, Python allows 1,000
# Errors of a file system that refuses a name of the archive; any other errno is about the disk.
_NAME_ERRORS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_DAMAGE_ERRORS = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError)


class RestoreRefused(RuntimeError):
    """An archive that is damaged or not Convoy's, or a target that exists."""


def restore(archive: Path, replace: bool, say: Say) -> None:
    """Restore all of `archive` into the working directory; with `replace`, what is there moves to .replaced/.

    Nothing changes before all is unpacked and proven; after a later kill the same command continues. The caller holds
    locks.hold_deployed(). Raises RestoreRefused, SourceRefused for an archive that could do harm.
    """
    staging = Path(f".restore-{sha256_of(archive)[:16]}")
    if not (staging / _PROVEN).exists():
        shutil.rmtree(staging, ignore_errors=True)
        _refuse_occupied(_parts_of(_readable_names(archive)), replace)
        try:
            contents = _unpack(archive, staging)
            _rewrite_paths(staging, contents.artifact_root)
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            if isinstance(error, sqlite3.Error):
                reason = f"{archive}: its {DATABASE} is no database of MLflow's ({error}); nothing was changed"
                raise RestoreRefused(reason) from None
            if _is_archive_error(error):
                raise RestoreRefused(f"{archive} cannot be unpacked ({error}); nothing was changed") from None
            raise
        os.sync()  # before the mark, which promises that all is written
        (staging / _PROVEN).touch()
        say(f"{archive}, made {contents.made_at}: {len(contents.files)} files, every one as its sha256 says")
    remaining = [part for part in _parts_of(_names_below(staging)) if (staging / part).exists()]
    _refuse_occupied(remaining, replace)
    replaced = REPLACED / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
    for part in remaining:
        was_occupied = _is_occupied(part)
        if was_occupied:
            _move_aside(part, replaced)
        _destination(part).parent.mkdir(exist_ok=True)
        (staging / part).rename(_destination(part))
        atomic.sync(_destination(part).parent)
        say(f"{part} is back" + (f"; what stood there is in {replaced}" if was_occupied else ""))
    shutil.rmtree(staging)
    if replaced.exists():
        say("start an MLflow server that runs here anew: it may still have the database open that is in .replaced/")


def _readable_names(archive: Path) -> list[str]:
    """The names in an archive, which is read to its end and refused where it could do harm."""
    try:
        return archives.refuse_hostile_tar(archive)
    except _DAMAGE_ERRORS as error:
        if isinstance(error, FileNotFoundError | SourceRefused):
            raise
        raise RestoreRefused(f"{archive} is damaged or no backup ({error}); nothing was changed") from None


def _is_archive_error(error: BaseException) -> bool:
    """Whether an error while unpacking is the archive's fault; a full disk, for example, is not."""
    if isinstance(error, OSError):
        return error.errno is None or error.errno in _NAME_ERRORS  # gzip's have no errno
    return isinstance(error, _DAMAGE_ERRORS) and not isinstance(error, SourceRefused)


def _parts_of(names: list[str]) -> list[str]:
    """The parts of a backup that these names are in, each of which appears in one step: the last ones are tasks."""
    tops = {name.partition("/")[0] for name in names}
    parts = [part for part in (DATABASE, ARTIFACTS) if part in tops]
    deployed = {match[1] for name in names if (match := _DEPLOYED_PART.fullmatch(name))}
    return [*parts, *sorted(deployed)]


def _names_below(staging: Path) -> list[str]:
    """The parts that were unpacked and are not yet in their place."""
    tops = [path.name for path in staging.iterdir() if path.name != DEPLOYED.name]
    return [*tops, *(f"{DEPLOYED}/{path.name}" for path in (staging / DEPLOYED).glob("*"))]


def _destination(part: str) -> Path:
    """The path of a part here; archives hold the database by its bare name."""
    return settings.default_database() if part == DATABASE else Path(part)


def _is_occupied(part: str) -> bool:
    path = _destination(part)
    return any(path.iterdir()) if path.is_dir() else path.exists() or path.is_symlink()


def _refuse_occupied(parts: list[str], replace: bool) -> None:
    occupied = [part for part in parts if _is_occupied(part)]
    if occupied and not replace:
        raise RestoreRefused(
            f"{', '.join(occupied)} in {Path().absolute()} would be replaced; with --replace what stands there is "
            f"moved to {REPLACED}/, or name another folder with --into"
        )


def _move_aside(part: str, folder: Path) -> None:
    path = _destination(part)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    path.rename(folder / path)
    if part == DATABASE:
        for suffix in _DATABASE_SUFFIXES:
            companion = path.with_name(part + suffix)
            if companion.exists():
                companion.rename(folder / companion)


def _unpack(archive: Path, staging: Path) -> Contents:
    """Write every file below `staging` and compare it with the archive's own list.

    Each member is checked again here, since the file may have changed since `_readable_names` read it.
    """
    digests: dict[str, str] = {}
    listing = b""
    bytes_left = archives.most_unpacked(archive)
    progress = tqdm(total=archive.stat().st_size, desc="restore", unit="B", unit_scale=True, disable=None)
    mode = archives.tar_mode(archive)
    with progress, archive.open("rb") as raw, tarfile.open(fileobj=raw, mode=mode) as tar:
        for member in tar:
            bytes_left -= member.size
            refusal = "more than the archive may unpack to" if bytes_left < 0 else _refusal_of(member, staging)
            if refusal or member.name in digests or (member.name == CONTENTS and listing):
                raise RestoreRefused(f"{archive}: {member.name!r} is {refusal or 'there twice'}; nothing was changed")
            stream = tar.extractfile(member)
            assert stream is not None  # a regular file has one
            if member.name == CONTENTS:
                listing = stream.read()
            else:
                digests[member.name] = _write_file(staging / member.name, stream)
                os.utime(staging / member.name, (member.mtime, member.mtime))
            progress.update(raw.tell() - progress.n)
    return _prove_contents(archive, listing, digests, staging)


def _refusal_of(member: tarfile.TarInfo, staging: Path) -> str:
    """Why a member must not be written; empty where it may."""
    if not member.isreg() or member.issparse():
        return "no regular file"
    if archives.leads_out(member.name) or not (member.name == CONTENTS or _parts_of([member.name])):
        return "no name that a backup has"
    if (normal := os.path.normpath(member.name)) != member.name:  # which it would overwrite
        return f"another way to write {normal!r}"
    if member.name.count("/") > _MAX_FOLDERS:
        return f"below more than {_MAX_FOLDERS} folders"
    if not _MTIMES_S[0] <= member.mtime < _MTIMES_S[1]:  # refuses NaN too
        return f"of no time that a file can have ({member.mtime:g} s after 1970)"
    if member.name == CONTENTS and member.size > MAX_CONTENTS_BYTES:
        return f"longer than {MAX_CONTENTS_BYTES} bytes"
    if hasattr(tarfile, "data_filter"):  # Python has it since 3.11.4
        try:
            tarfile.data_filter(member, str(staging))
        except tarfile.FilterError as error:
            return f"refused by Python's tarfile ({error})"
    return ""


def _write_file(path: Path, content: IO[bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        while block := content.read(_BLOCK):
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()


def _prove_contents(archive: Path, listing: bytes, digests: dict[str, str], staging: Path) -> Contents:
    try:
        contents = Contents.model_validate_json(listing)
    except ValidationError:
        raise RestoreRefused(f"{archive} has no readable {CONTENTS}: it is no backup of Convoy's") from None
    expected = {name: entry.sha256 for name, entry in contents.files.items()}
    wrong = sorted(name for name in expected.keys() | digests.keys() if expected.get(name) != digests.get(name))
    wrong += [name for name in digests if not _parts_of([name])]
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


def _rewrite_paths(staging: Path, old_root: str) -> None:
    """Replace the absolute paths of artifacts that MLflow stores: the backup may be from another folder."""
    new_root, database = settings.artifact_root().as_uri(), staging / DATABASE
    if new_root == old_root or not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            for column in [row[1] for row in columns if row[2].upper().startswith(("VARCHAR", "TEXT"))]:
                for old, new in ((old_root, new_root), (_local_path(old_root), _local_path(new_root))):
                    connection.execute(
                        f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) '
                        f'WHERE "{column}" = ? OR substr("{column}", 1, ?) = ?',
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )


def _local_path(uri: str) -> str:
    return uri.removeprefix("file://")
