"""Detects what kind of source a path is, counts all its items and samples them."""

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from convoy.core.paths import Task
from convoy.data.raw import explain, sieve
from convoy.data.splits import HELD_OUT
from convoy.kinds.image.preprocessing import decode
from convoy.kinds.kind import InputRejected
from convoy.operations.init.columns import Chooser, Columns, files_in
from convoy.sources import registry, tables
from convoy.sources.archives import is_archive
from convoy.sources.items import Item, ItemsAndRejections, Rejection, SourceParams, SourceRefused, TableParams

SAMPLE_ROWS = 200
SAMPLE = 500  # of each label: the first so many items are all sampled, then fewer and fewer
MAX_PIXELS = 100_000_000
COLOURED = 12  # of 255: a grey picture saved as a colour JPEG differs by less
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
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
    if task == "image" and (path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*-images*ubyte*")))):
        return Detected(params.model_copy(update={"source": "arrays"}))
    if is_archive(path):
        return Detected(params)
    if path.is_file():
        return _detect_table(task, path, params, options, kept)
    tables_found = sorted(file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES)
    if any(file.is_dir() for file in path.iterdir()):
        # Beside folders a table may be about something else; one of images names files.
        tables_found = [file for file in tables_found if task == "image" and _names_files(file, encoding)]
    if len(tables_found) > 1:
        names = ", ".join(file.name for file in tables_found)
        raise SourceRefused(f"{path} holds several tables: {names}; name one of them with --from")
    return _detect_table(task, tables_found[0], params, options, kept) if tables_found else Detected(params)


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
    if task == "image":
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

    task: Task
    counts: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    held_out: Counter[str] = field(default_factory=Counter)  # by label, those that the source holds out
    rejections: list[Rejection] = field(default_factory=list)
    sides_px: list[int] = field(default_factory=list)  # the longer side of each image
    most_pixels: int = 0
    coloured: int = 0
    dark_borders: int = 0
    lengths: list[int] = field(default_factory=list)  # in words and punctuation marks
    characters: int = 0  # of the longest text
    words: Counter[str] = field(default_factory=Counter)

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
        if self.sides_px:
            low, middle, high = np.percentile(self.sides_px, (5, 50, 95)).round().astype(int)
            share = self.coloured / len(self.sides_px)
            lines.append(f"longer side {middle} px (5 to 95 %: {low} to {high}); {share:.0%} of a sample have colours")
        if self.lengths:
            low, middle, high = np.percentile(self.lengths, (5, 50, 95)).round().astype(int)
            lines.append(f"{middle} words and marks in the middle (5 to 95 %: {low} to {high})")
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
    survey = Survey(task)
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
            _add_to_sample(item, survey)
    return survey


def _add_to_sample(item: Item, survey: Survey) -> None:
    if isinstance(item.content, str):
        words = _WORD.findall(item.content.lower())
        survey.lengths.append(len(words))
        survey.words.update(words)
        survey.characters = max(survey.characters, len(item.content))
        return
    try:
        image = decode(item.content, MAX_PIXELS)
    except InputRejected as rejection:
        survey.rejections.append(Rejection(item.name, rejection.code, rejection.message))
        return
    survey.sides_px.append(max(image.size))
    survey.most_pixels = max(survey.most_pixels, image.width * image.height)
    thumbnail = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    survey.coloured += bool(np.ptp(thumbnail, axis=2).mean() > COLOURED)
    border = np.concatenate([thumbnail[0], thumbnail[-1], thumbnail[:, 0], thumbnail[:, -1]])
    survey.dark_borders += bool(border.mean() < 64)
