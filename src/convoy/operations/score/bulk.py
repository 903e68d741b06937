"""Many inputs -> one Parquet file of their predictions, part by part, so that after a kill the same command goes on."""

import codecs
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from convoy.core.machine import usable_cores
from convoy.core.progress import Say
from convoy.operations.score.inputs import Inputs, Item
from convoy.operations.score.parts import Parts
from convoy.operations.score.refusal import ScoringRefused
from convoy.operations.score.scorer import Scorer

PART_ROWS = 4096  # what a kill may lose: 2 to 7 seconds of the models as they are built here, on 2 cores


@dataclass(frozen=True)
class Settings:
    """How rows are scored; all but the number of threads may show in the last digits, and stay the same in a job."""

    batch_size: int
    threads: int | None = None
    restart: bool = False


def score(scorer: Scorer, inputs: Inputs, output: Path, settings: Settings, say: Say) -> None:
    """Score all of `inputs` into `output`, a Parquet file that appears whole; what a kill left is gone on with.

    Raises ScoringRefused where the input, the model or the options are not those that it was begun with, SourceRefused
    where a table cannot be read.
    """
    _refuse_what_makes_no_sense(scorer, inputs.place, output)
    job = _job(scorer, inputs, settings)
    total, parts = inputs.count(), Parts(output)
    with parts.begun(job, settings.restart):
        _score_parts(scorer, inputs, parts, settings, total)
        if inputs.fingerprint() != job["input"]:
            raise ScoringRefused(f"{inputs.place} changed while it was scored; begin anew with --restart")
        rejected = parts.join(scorer.schema, total)
    say(f"{output}: {total} rows, {rejected} of them without a prediction (column `error` says why)")


def _score_parts(scorer: Scorer, inputs: Inputs, parts: Parts, settings: Settings, total: int) -> None:
    number = parts.whole()
    interval_s = 0.5 if sys.stderr.isatty() else 30
    kept = min(number * PART_ROWS, total)
    items = islice(iter(inputs), kept, None)
    with (
        ThreadPoolExecutor(settings.threads or usable_cores()) as pool,
        tqdm(
            total=total, initial=kept, desc="scoring", unit="row", mininterval=interval_s, maxinterval=interval_s
        ) as bar,
    ):
        while part := list(islice(items, PART_ROWS)):
            first_row = number * PART_ROWS
            batches = list(_split(part, settings.batch_size))
            first_rows = range(first_row, first_row + len(part), settings.batch_size)
            tables = []
            for table in pool.map(scorer.score, first_rows, batches):
                tables.append(table)
                bar.update(table.num_rows)
            parts.write(number, pa.concat_tables(tables).combine_chunks())
            number += 1


def _split(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _job(scorer: Scorer, inputs: Inputs, settings: Settings) -> dict[str, Any]:
    """What must be the same for parts to belong together."""
    options = {
        "column": inputs.column,
        "encoding": inputs.encoding,
        "polarity": scorer.polarity,
        "batch_size": settings.batch_size,
    }
    return {
        "input": inputs.fingerprint(),
        "model": {"task": inputs.task, "digest": scorer.predictor.digest},
        "options": options,
        "convoy": {"version": version("convoy"), "part_rows": PART_ROWS},
    }


def _refuse_what_makes_no_sense(scorer: Scorer, place: Path, output: Path) -> None:
    if scorer.polarity and scorer.predictor.card.task != "image":
        raise ScoringRefused(f"--polarity is for images; leave it out with --task {scorer.predictor.card.task}")
    if not place.exists():
        raise ScoringRefused(f"{place} is missing; INPUT is a table or a folder")
    try:
        codecs.lookup(scorer.encoding)
    except LookupError:
        raise ScoringRefused(
            f"--encoding {scorer.encoding} is not known; for example utf-8, latin-1 and utf-16 are"
        ) from None
    if output.suffix != ".parquet":
        raise ScoringRefused(f"{output} is to be a Parquet file; let its name end in .parquet")
    if place.resolve() in (output.resolve(), *output.resolve().parents):
        raise ScoringRefused(f"{output} is INPUT or within it; name a file elsewhere")
