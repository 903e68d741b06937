"""Detects what kind of source a path is, counts all its items and samples them."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from convoy.core.paths import Task
from convoy.data.raw import explain, sieve
from convoy.data.splits import HELD_OUT
from convoy.kinds.registry import module
from convoy.kinds.rejection import InputRejected
from convoy.operations.init.columns import Chooser, Columns, files_in
from convoy.sources import registry, tables
from convoy.sources.archives import is_archive
from convoy.sources.items import ItemsAndRejections, Rejection, SourceParams, SourceRefused, TableParams

SAMPLE_ROWS = 200
SAMPLE = 500  # of each label: the first so many items are all sampled, then fewer and fewer
NO_COLUMNS = Columns()
READ = {
    "folder": "a folder per label",
    "table": "a table with a column of labels",
    "arrays": "arrays of pixels and labels",
}


@dataclass(frozen=True)
class Detected:
    """What a path is, and the params that read it."""

    params: SourceParams
    reasons: dict[str, str] = field(default_factory=dict)  # of a table, why its columns content and label are those
    doubts: tuple[str, ...] = ()  # which other columns these could be, in words

    @property
    def source(self) -> str:
        """The source that reads it."""
        return self.params.source

    def read(self, task: Task) -> ItemsAndRejections:
        """The items, as the fetch stage will read them."""
        return registry.find(self.source, task).read(self.params, task)


def detect(
    task: Task,
    path: Path,
    encoding: str,
    labels: tuple[str, ...] | None = None,
    options: Columns = NO_COLUMNS,
    kept: Columns = NO_COLUMNS,
) -> Detected:
    """What `path` is, by its name and content.

    Of a table, `options` name the columns; `kept` names those that are used where the table has them.
    Raises SourceRefused, which says what was expected.
    """
    detected = _detect(task, path, encoding, labels, options, kept)
    if options.named() and detected.source != "table":
        name = next(iter(options.named()))
        raise SourceRefused(f"--{name} names a column of a table; {path} is {READ[detected.source]}; leave it out")
    return detected


def _detect(
    task: Task, path: Path, encoding: str, labels: tuple[str, ...] | None, options: Columns, kept: Columns
) -> Detected:
    if not path.exists():
        raise SourceRefused(f"{path} does not exist; name a folder, an archive of one, a table, or arrays")
    table = TableParams(file=None, content="text", label="label", split="split", encoding=encoding)
    params = SourceParams(source="folder", path=path, given_splits=True, labels=labels, table=table)
    is_arrays = path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*-images*ubyte*")))
    if is_arrays and registry.is_for("arrays", task):
        return Detected(params.model_copy(update={"source": "arrays"}))
    if is_archive(path):
        return Detected(params)
    if path.is_file():
        return _detect_table(task, path, params, options, kept)
    tables_found = sorted(file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES)
    if any(file.is_dir() for file in path.iterdir()):
        # Beside folders a table may be about something else; one of images names files.
        tables_found = [file for file in tables_found if _holds_files(task) and _names_files(file, encoding)]
    if len(tables_found) > 1:
        names = ", ".join(file.name for file in tables_found)
        raise SourceRefused(f"{path} holds several tables: {names}; name one of them with --from")
    return _detect_table(task, tables_found[0], params, options, kept) if tables_found else Detected(params)


def _holds_files(kind: str) -> bool:
    """Whether a cell of a table of this kind is the path of a file."""
    return bool(module(kind, "raw").RAW is bytes)


def _names_files(table: Path, encoding: str) -> bool:
    try:
        return bool(files_in(_sample_rows(table, encoding), table.parent))
    except SourceRefused:
        return False


def _detect_table(task: Task, table: Path, source: SourceParams, options: Columns, kept: Columns) -> Detected:
    """A table with its columns. The path is the table itself, or for images its folder."""
    if table.suffix.lower() not in tables.SUFFIXES:
        raise SourceRefused(f"{table} is neither a table ({', '.join(tables.SUFFIXES)}) nor an archive")
    rows = _sample_rows(table, source.table.encoding)
    choice = Chooser(task, table, source.table.encoding, rows, options, kept).choose()
    update = {"content": choice.content, "label": choice.label, "split": choice.split or "split"}
    columns = source.table.model_copy(update=update)
    if choice.split is None and any(columns.split in row for row in rows):  # the stage would use it by its name
        source = source.model_copy(update={"given_splits": False})
    path = table
    if _holds_files(task):
        path = table.parent
        other_tables = [file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES and file != table]
        columns = columns.model_copy(update={"file": table.name if other_tables else None})
    params = source.model_copy(update={"source": "table", "table": columns, "path": path})
    return Detected(params, choice.reasons, tuple(choice.doubts))


def _sample_rows(table: Path, encoding: str) -> list[dict[str, object]]:
    rows = [row for _, row in islice(tables.rows_of(table, encoding), SAMPLE_ROWS) if isinstance(row, dict)]
    if not rows:
        raise SourceRefused(
            f"{table} has no usable row among its first {SAMPLE_ROWS}; is it {encoding}? --encoding states another"
        )
    return rows


@dataclass
class Survey:
    """Counts of all items, and figures of a sample."""

    sample: Any  # of the kind's module `survey`
    counts: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    held_out: Counter[str] = field(default_factory=Counter)  # by label, those that the source holds out
    rejections: list[Rejection] = field(default_factory=list)

    def describe(self) -> list[str]:
        """What was found, in plain words."""
        common = self.counts.most_common()
        listed = ", ".join(f"{label} {count:,}" for label, count in common[:12])
        remaining = f" and {len(common) - 12} more" if len(common) > 12 else ""
        lines = [f"{self.counts.total():,} usable items of {len(common)} labels: {listed}{remaining}"]
        if self.splits:
            lines.append("divided already: " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items()))
            trained_alone = sorted(set(self.counts) - set(self.held_out))
            if trained_alone:
                lines.append(
                    f"never held out: {', '.join(trained_alone[:5])}; is it a label? Else leave it out: --labels"
                )
        lines += self.sample.describe()
        lines.append(explain(self.rejections))
        return (
            lines
            + [f"  {rejection.name}: {rejection.message}" for rejection in self.rejections if not rejection.ignored][:5]
        )

    def warn_of_rare(self, limit: str, minimum: int | None) -> list[str]:
        """Labels that will stop the pipeline: too few to train on and to divide, or fewer than `limit` says."""
        parts = ["train", *(name for name in HELD_OUT if name not in self.splits)]
        rare = []
        for label, count in reversed(self.counts.most_common()):
            held_out = self.held_out[label]
            if count - held_out < len(parts) or (minimum is not None and count < minimum):
                rare.append(f"{label} {count - held_out}" + (f" and {held_out} held out" if held_out else ""))
        if not rare:
            return []
        needed = f"at least {len(parts)} each are needed for {', '.join(parts)}"
        needed += "" if minimum is None else f", and {minimum} in all ({limit})"
        return [f"too few, which stops the pipeline: {', '.join(rare[:5])}; {needed}; leave them out: --labels"]


def take_survey(detected: Detected, task: Task) -> Survey:
    """Read the whole source once: count every label, sample some thousand items."""
    survey = Survey(module(task, "survey").Sample())
    generator = np.random.default_rng(0)
    items = tqdm(detected.read(task), "looking", unit="", mininterval=1, disable=None)
    for item in sieve(items, survey.rejections, None):
        survey.counts[item.label] += 1
        if item.split:
            survey.splits[item.split] += 1
            if item.split != "train":
                survey.held_out[item.label] += 1
        # By label: most sources are sorted by them, and the first label would be most of the sample.
        if generator.random() * survey.counts[item.label] < SAMPLE:
            try:
                survey.sample.add(item.content)
            except InputRejected as rejection:
                survey.rejections.append(Rejection(item.name, rejection.code, rejection.message))
    return survey
