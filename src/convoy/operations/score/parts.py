"""OUTPUT.parts/: the scored rows in whole parts, beside the job that they belong to, until they become OUTPUT."""

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
    """The folder of one output, held by one process; a kill at any step loses at most the current part."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")

    @contextmanager
    def begun(self, job: dict[str, Any], restart: bool) -> Iterator[None]:
        """Hold the folder for a job, whose parts stay; with `restart` it begins again, and may replace the output.

        Raises ScoringRefused where another process holds it, or where parts or output are not this job's to change.
        """
        self._refuse_foreign(restart)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locks.hold(self.folder / ".lock") as is_alone:
            if not is_alone:
                raise ScoringRefused(f"{self.output} is being scored by another process; wait for its end")
            self._begin(job, restart)
            yield

    def whole(self) -> int:
        """How many parts there are, up to the first that is missing."""
        number = 0
        while self._part_path(number).exists():
            number += 1
        return number

    def write(self, number: int, table: pa.Table) -> None:
        """Write a part in one step; the same table gives the same bytes."""
        with atomic.new_file(self._part_path(number)) as temporary:
            pq.write_table(table, temporary)

    def join(self, schema: pa.Schema, total: int) -> int:
        """Join all parts to the output in one step, one row group each; gives the number of rows with an error.

        Raises ScoringRefused where they do not have `total` rows together, or cannot be read.
        """
        rows = scored = 0
        with atomic.new_file(self.folder / WHOLE) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for number in range(self.whole()):
                part = self._read_part(number)
                rows, scored = rows + part.num_rows, scored + part["error"].null_count
                writer.write_table(part.replace_schema_metadata(schema.metadata))
            if rows != total:
                raise ScoringRefused(f"{self.folder} holds {rows} rows of {total}; begin anew with --restart")
        (self.folder / WHOLE).replace(self.output)
        atomic.sync(self.output.parent)  # before the parts are deleted: a power cut must leave one of both
        for path in self.folder.glob("part-*"):
            path.unlink()
        shutil.rmtree(self.folder)  # with the job, last: without it the parts that a kill leaves would belong to no job
        return rows - scored

    def _begin(self, job: dict[str, Any], restart: bool) -> None:
        old_job = None if restart else self._read_job()
        if old_job is None:
            self._delete("*")
            atomic.write_json(self.folder / JOB, job)
        elif changed := [key for key in job if old_job.get(key) != job[key]]:
            differences = "; ".join(f"{key} was {old_job.get(key)}, is {job[key]}" for key in changed)
            raise ScoringRefused(
                f"{self.folder} was begun with something else: {differences}. "
                "Go on with what it was begun with, or begin anew with --restart."
            )
        self._delete(".part-*", f".{WHOLE}.*")

    def _refuse_foreign(self, restart: bool) -> None:
        """Refuse an output that no job of this folder may replace, and a folder of this name that is not Convoy's.

        An existing job was begun without an output, or with --restart.
        """
        if self.output.exists() and not restart and not (self.folder / JOB).exists():
            raise ScoringRefused(f"{self.output} exists; name another file, or replace it with --restart")
        if self.output.is_dir() or (self.folder.exists() and not self.folder.is_dir()):
            raise ScoringRefused(f"{self.output} or {self.folder} is in the way; move it, or name another OUTPUT")
        own = (JOB, WHOLE, ".lock", f".{JOB}.", f".{WHOLE}.", "part-", ".part-")
        foreign = [path.name for path in self.folder.glob("*") if not path.name.startswith(own)]
        if foreign:
            raise ScoringRefused(f"{self.folder} holds {foreign[0]}, which is not Convoy's; move the folder away")

    def _read_job(self) -> dict[str, Any] | None:
        path = self.folder / JOB
        try:
            return dict(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ScoringRefused(f"{path} cannot be read ({error}); begin anew with --restart") from None

    def _delete(self, *patterns: str) -> None:
        for path in [path for pattern in patterns for path in self.folder.glob(pattern)]:
            if path.name != ".lock":
                path.unlink()

    def _part_path(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"

    def _read_part(self, number: int) -> pa.Table:
        try:
            with pq.ParquetFile(self._part_path(number)) as file:
                return file.read()
        except pa.ArrowException as error:
            path = self._part_path(number)
            raise ScoringRefused(f"{path} cannot be read ({error}); delete it, and it is scored again") from None
