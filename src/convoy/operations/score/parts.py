"""OUTPUT.parts/: what is scored by now, in whole parts beside the job that they belong to, until they become OUTPUT."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from convoy.core import atomic, locks
from convoy.operations.score.inputs import ScoringRefused

JOB, WHOLE = "job.json", "whole.parquet"


class Parts:
    """The folder of one output, held by one process; a kill at any step loses no more than the part it was at."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")

    @contextmanager
    def begun(self, job: dict[str, Any], restart: bool) -> Iterator[None]:
        """Hold the folder for a job, whose parts stay; with `restart` it begins anew, and may replace the output.

        Raises ScoringRefused where another process holds it, or where parts or output are not this job's to change.
        """
        self._refuse_what_is_not_ours(restart)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locks.hold(self.folder / ".lock") as is_alone:
            if not is_alone:
                raise ScoringRefused(f"{self.output} is being scored by another process; wait for its end")
            self._begin(job, restart)
            yield

    def whole(self) -> int:
        """How many parts there are, up to the first that is missing."""
        number = 0
        while self._path(number).exists():
            number += 1
        return number

    def write(self, number: int, table: pa.Table) -> None:
        """Let a part appear; the same table gives the same bytes."""
        with atomic.new_file(self._path(number)) as temporary:
            pq.write_table(table, temporary)

    def join(self, schema: pa.Schema, total: int) -> int:
        """All parts -> the output, in one step, one row group each; gives the number of rows with an error.

        Raises ScoringRefused where they do not have `total` rows together, or cannot be read.
        """
        rows = scored = 0
        with atomic.new_file(self.folder / WHOLE) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for number in range(self.whole()):
                part = self._read(number)
                rows, scored = rows + part.num_rows, scored + part["error"].null_count
                writer.write_table(part.replace_schema_metadata(schema.metadata))
            if rows != total:
                raise ScoringRefused(f"{self.folder} holds {rows} rows of {total}; begin anew with --restart")
        (self.folder / WHOLE).replace(self.output)
        atomic.sync(self.output.parent)  # before the parts go: after a power cut one of both must be there
        for path in self.folder.glob("part-*"):
            path.unlink()
        shutil.rmtree(self.folder)  # the job is last: without it, what a kill leaves would belong to nobody
        return rows - scored

    def _begin(self, job: dict[str, Any], restart: bool) -> None:
        known = None if restart else self._job()
        if known is None:
            self._sweep("*")
            atomic.write_json(self.folder / JOB, job)
        elif changed := [key for key in job if known.get(key) != job[key]]:
            differences = "; ".join(f"{key} was {known.get(key)}, is {job[key]}" for key in changed)
            raise ScoringRefused(
                f"{self.folder} was begun with something else: {differences}. "
                "Go on with what it was begun with, or begin anew with --restart."
            )
        self._sweep(".part-*", f".{WHOLE}.*")

    def _refuse_what_is_not_ours(self, restart: bool) -> None:
        """An output that no job of this folder may replace, or a folder of this name that is not ours, stays as it is.

        A job that is there was begun when there was no output, or with --restart.
        """
        if self.output.exists() and not restart and not (self.folder / JOB).exists():
            raise ScoringRefused(f"{self.output} exists; name another file, or replace it with --restart")
        if self.output.is_dir() or (self.folder.exists() and not self.folder.is_dir()):
            raise ScoringRefused(f"{self.output} or {self.folder} is in the way; move it, or name another OUTPUT")
        ours = (JOB, WHOLE, ".lock", f".{JOB}.", f".{WHOLE}.", "part-", ".part-")
        strange = [path.name for path in self.folder.glob("*") if not path.name.startswith(ours)]
        if strange:
            raise ScoringRefused(f"{self.folder} holds {strange[0]}, which is not Convoy's; move the folder away")

    def _job(self) -> dict[str, Any] | None:
        path = self.folder / JOB
        try:
            return dict(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ScoringRefused(f"{path} cannot be read ({error}); begin anew with --restart") from None

    def _sweep(self, *patterns: str) -> None:
        for path in [path for pattern in patterns for path in self.folder.glob(pattern)]:
            if path.name != ".lock":
                path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"

    def _read(self, number: int) -> pa.Table:
        try:
            with pq.ParquetFile(self._path(number)) as file:
                return file.read()
        except pa.ArrowException as error:
            path = self._path(number)
            raise ScoringRefused(f"{path} cannot be read ({error}); delete it, and it is scored again") from None
