"""Scores many inputs to one Parquet file, part by part, so that the same command continues after a kill."""

import codecs
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from convoy.bundles.bundle import BundleInvalid
from convoy.bundles.predictor import Predictor, Prepared
from convoy.core import tasks
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say, usable_cores
from convoy.core.rejection import InputRejected
from convoy.kinds.registry import module
from convoy.operations.score.inputs import Inputs, Item, ScoringRefused, decode, read_file
from convoy.operations.score.parts import Parts

PART_ROWS = 4096  # lost at most by a kill: 2 to 7 seconds of work with these models on 2 cores


@dataclass(frozen=True)
class Settings:
    """How rows are scored; within a job only `threads` may change, since the others may change the last digits."""

    batch_size: int
    threads: int | None = None
    restart: bool = False


@dataclass(frozen=True)
class Scorer:
    """The deployed model of one task, loaded once, and how inputs are read for it."""

    predictor: Predictor
    encoding: str
    polarity: str | None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the output, and the model that made it."""
        card = self.predictor.card
        fields = {"row": pa.int64(), "name": pa.string(), "label": pa.string(), "probability": pa.float32()}
        probability_fields = {f"probability_{label}": pa.float32() for label in card.labels}
        origin = {"digest": self.predictor.digest, "task": card.task, "version": version("convoy")}
        metadata = {f"convoy.{key}": value for key, value in origin.items()}
        return pa.schema(
            {**fields, **probability_fields, "warning": pa.string(), "error": pa.string()}, metadata=metadata
        )

    def score(self, first_row: int, items: list[Item]) -> pa.Table:
        """One row per item, in order; an item that cannot be used has its reason in `error` and no probability."""
        prepared: dict[int, Prepared] = {}
        errors: list[str | None] = [None] * len(items)
        for index, item in enumerate(items):
            try:
                prepared[index] = self._prepare(item)
            except InputRejected as rejection:
                errors[index] = f"{rejection.code}: {rejection.message}"
        probabilities = np.full((len(items), len(self.predictor.card.labels)), np.nan, dtype=np.float32)
        if prepared:
            probabilities[list(prepared)] = self.predictor.probabilities([item.array for item in prepared.values()])
        missing = np.isnan(probabilities).any(axis=1)
        for index in np.flatnonzero(missing).tolist():
            errors[index] = errors[index] or "model_failed: the model gave a probability that is no number"
        best = np.where(missing, 0, probabilities.argmax(axis=1))
        columns = [
            pa.array(range(first_row, first_row + len(items)), pa.int64()),
            pa.array([item.name for item in items], pa.string()),
            pa.array(np.array(self.predictor.card.labels, dtype=object)[best], pa.string(), mask=missing),
            *(pa.array(column, pa.float32(), mask=missing) for column in (probabilities.max(axis=1), *probabilities.T)),
            pa.array([_warning_of(prepared.get(index)) for index in range(len(items))], pa.string()),
            pa.array(errors, pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _prepare(self, item: Item) -> Prepared:
        raw: bytes | str
        if isinstance(item.content, InputRejected):
            raise item.content
        if isinstance(item.content, str):
            raw = item.content
        else:
            raw = read_file(item.content, self.predictor.card.limits.max_body_bytes)  # no more than REST takes
            if module(self.predictor.card.kind, "items.raw").RAW is str:
                raw = decode(raw, self.encoding)
        return self.predictor.prepare(raw, **({"polarity": self.polarity} if self.polarity else {}))


def _warning_of(prepared: Prepared | None) -> str | None:
    """The `warnings` and `truncated` of the REST answer."""
    if prepared is None:
        return None
    warnings = [warning.replace("?polarity", "--polarity") for warning in prepared.warnings]
    if getattr(prepared, "truncated", False):
        warnings.append("the text was cut")
    return "; ".join(warnings) or None


def load(task: str) -> Predictor:
    """The model of a task in deployed/, or in $CONVOY_DEPLOYED. Raises BundleInvalid with the remedy."""
    root = Path(os.environ.get("CONVOY_DEPLOYED") or DEPLOYED)
    current = root / task / "current"
    if not current.exists():
        deployed = ", ".join(name for name in tasks.deployed(root) if name != task) or "none"
        raise BundleInvalid(
            f"{current.absolute()} is missing: no model of {task} is deployed; other deployed tasks: {deployed}. "
            "`python -m convoy publish` deploys what `dvc repro` built; CONVOY_DEPLOYED names another folder."
        )
    folder = current.resolve()  # once: `current` may move while the files are read
    predictor = Predictor(folder)  # one thread each time it runs: several batches at once make more of the cores
    if not tasks.is_same(task, predictor.card.task):
        raise BundleInvalid(f"{folder} is a bundle for {predictor.card.task}, not for {task}; deploy the right one")
    return predictor


def score(scorer: Scorer, inputs: Inputs, output: Path, settings: Settings, say: Say) -> None:
    """Score all of `inputs` into `output`, a Parquet file that appears whole; continues what a kill has left.

    Raises ScoringRefused where the input, the model or the options are not those that it was begun with, SourceRefused
    where a table cannot be read.
    """
    _refuse_invalid(scorer, inputs.place, output)
    job = _describe_job(scorer, inputs, settings)
    total, parts = inputs.count(), Parts(output)
    with parts.begun(job, settings.restart):
        _score_parts(scorer, inputs, parts, settings, total)
        if inputs.fingerprint() != job["input"]:
            raise ScoringRefused(f"{inputs.place} changed while it was scored; begin anew with --restart")
        rejected = parts.join(scorer.schema, total)
    say(f"{output}: {total} rows, {rejected} of them without a prediction (column `error` says why)")


def _refuse_invalid(scorer: Scorer, place: Path, output: Path) -> None:
    if scorer.polarity and not hasattr(scorer.predictor.card.preprocessing, "polarity"):
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


def _describe_job(scorer: Scorer, inputs: Inputs, settings: Settings) -> dict[str, Any]:
    """The settings that all parts of an output have in common."""
    of_rows = {"column": inputs.column, "encoding": inputs.encoding}
    return {
        "input": inputs.fingerprint(),
        "model": {"task": inputs.task, "digest": scorer.predictor.digest},
        "options": {**of_rows, "polarity": scorer.polarity, "batch_size": settings.batch_size},
        "convoy": {"version": version("convoy"), "part_rows": PART_ROWS},
    }


def _score_parts(scorer: Scorer, inputs: Inputs, parts: Parts, settings: Settings, total: int) -> None:
    number, size = parts.whole(), settings.batch_size
    scored = min(number * PART_ROWS, total)
    items = islice(iter(inputs), scored, None)
    each_s = 0.5 if sys.stderr.isatty() else 30
    bar = tqdm(total=total, initial=scored, desc="scoring", unit="row", mininterval=each_s, maxinterval=each_s)
    with ThreadPoolExecutor(settings.threads or usable_cores()) as pool, bar:
        while part := list(islice(items, PART_ROWS)):
            starts, tables = range(0, len(part), size), []
            first_rows = [number * PART_ROWS + start for start in starts]
            for table in pool.map(scorer.score, first_rows, [part[start : start + size] for start in starts]):
                tables.append(table)
                bar.update(table.num_rows)
            parts.write(number, pa.concat_tables(tables).combine_chunks())
            number += 1
