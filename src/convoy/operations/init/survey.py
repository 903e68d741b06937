"""A path that a user names -> the kind of source it is, what it holds, counted whole and sampled."""

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from convoy.core.paths import Task
from convoy.data.raw import explain, sieve
from convoy.data.splits import HELD_OUT
from convoy.kinds.image.preprocessing import decode
from convoy.kinds.kind import InputRejected
from convoy.operations.init.columns import Chooser, Columns, files_in
from convoy.sources import arrays, tables
from convoy.sources.archives import is_archive
from convoy.sources.items import Item, ItemsAndRejections, Rejection, SourceParams, SourceRefused, TableParams

Kind = Literal["folder", "table", "arrays"]
READ: dict[Kind, str] = {
    "folder": "a folder per label",
    "table": "a table with a column of labels",
    "arrays": "arrays of pixels and labels",
}
SAMPLE_ROWS = 200
NOBODY = Columns()

SAMPLE = 500  # of each label that are looked into: all of the first so many, then fewer and fewer
MOST_PIXELS = 100_000_000
COLOURED = 12  # of 255: a grey picture that was saved as a colour JPEG strays by less
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Detected:
    """What a path is, and the params that read it."""

    kind: Kind
    params: SourceParams
    reasons: dict[str, str] = field(default_factory=dict)  # of a table, why its columns content and label are those
    doubts: tuple[str, ...] = ()  # what else these could be, in words

    def read(self, task: Task) -> ItemsAndRejections:
        """The items, as the fetch stage will read them."""
        from convoy.sources import folders

        match self.kind:
            case "folder":
                return folders.read(self.params, task)
            case "table":
                return tables.read(self.params, task)
            case "arrays":
                return arrays.read(self.params)


def detect(
    task: Task,
    path: Path,
    encoding: str,
    labels: tuple[str, ...] | None = None,
    options: Columns = NOBODY,
    kept: Columns = NOBODY,
) -> Detected:
    """What `path` is, told from its name and from what lies in it.

    Of a table, `options` name columns, and `kept` those that are taken where the table has them.
    Raises SourceRefused, which says what was expected.
    """
    detected = _detect(task, path, encoding, labels, options, kept)
    if options.named() and detected.kind != "table":
        name = next(iter(options.named()))
        raise SourceRefused(f"--{name} names a column of a table; {path} is {READ[detected.kind]}; leave it out")
    return detected


def _detect(
    task: Task, path: Path, encoding: str, labels: tuple[str, ...] | None, options: Columns, kept: Columns
) -> Detected:
    if not path.exists():
        raise SourceRefused(f"{path} does not exist; name a folder, an archive of one, a table, or arrays")
    plain = TableParams(file=None, content="text", label="label", split="split", encoding=encoding)
    base = SourceParams(path=path, given_splits=True, labels=labels, table=plain)
    if task == "image" and (path.suffix.lower() == ".npz" or (path.is_dir() and any(path.glob("*-images*ubyte*")))):
        return Detected("arrays", base)
    if is_archive(path):
        return Detected("folder", base)
    if path.is_file():
        return _of_table(task, path, base, options, kept)
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES)
    if any(file.is_dir() for file in path.iterdir()):
        # Beside folders a table may be about something else; the one of images names them.
        found = [file for file in found if task == "image" and _names_files(file, encoding)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise SourceRefused(f"{path} holds several tables: {names}; name one of them with --from")
    return _of_table(task, found[0], base, options, kept) if found else Detected("folder", base)


def _names_files(table: Path, encoding: str) -> bool:
    try:
        return bool(files_in(_sample(table, encoding), table.parent))
    except SourceRefused:
        return False


def _of_table(task: Task, table: Path, base: SourceParams, options: Columns, kept: Columns) -> Detected:
    """Its columns. The path is the table itself, or for images the folder that it is in."""
    if table.suffix.lower() not in tables.SUFFIXES:
        raise SourceRefused(f"{table} is neither a table ({', '.join(tables.SUFFIXES)}) nor an archive")
    rows = _sample(table, base.table.encoding)
    choice = Chooser(task, table, base.table.encoding, rows, options, kept).choose()
    update = {"content": choice.content, "label": choice.label, "split": choice.split or "split"}
    columns = base.table.model_copy(update=update)
    if choice.split is None and any(columns.split in row for row in rows):  # which the stage would take by its name
        base = base.model_copy(update={"given_splits": False})
    path = table
    if task == "image":
        path = table.parent
        others = [file for file in path.iterdir() if file.suffix.lower() in tables.SUFFIXES and file != table]
        columns = columns.model_copy(update={"file": table.name if others else None})
    params = base.model_copy(update={"table": columns, "path": path})
    return Detected("table", params, choice.reasons, tuple(choice.doubts))


def _sample(table: Path, encoding: str) -> list[dict[str, object]]:
    rows = [row for _, row in islice(tables.rows_of(table, encoding), SAMPLE_ROWS) if isinstance(row, dict)]
    if not rows:
        raise SourceRefused(
            f"{table} has no usable row among its first {SAMPLE_ROWS}; is it {encoding}? --encoding states another"
        )
    return rows


@dataclass
class Survey:
    """Counts of all items, and what a sample of them is like."""

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

    def tell(self) -> list[str]:
        """What was found, in plain words."""
        common = self.counts.most_common()
        listed = ", ".join(f"{label} {count:,}" for label, count in common[:12])
        more = f" and {len(common) - 12} more" if len(common) > 12 else ""
        told = [f"{self.counts.total():,} usable items of {len(common)} labels: {listed}{more}"]
        if self.splits:
            told.append("divided already: " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items()))
            trained_alone = sorted(set(self.counts) - set(self.held_out))
            if trained_alone:
                told.append(
                    f"never held out: {', '.join(trained_alone[:5])}; is it a label? Else leave it out: --labels"
                )
        if self.sides_px:
            low, middle, high = np.percentile(self.sides_px, (5, 50, 95)).round().astype(int)
            share = self.coloured / len(self.sides_px)
            told.append(f"longer side {middle} px (5 to 95 %: {low} to {high}); {share:.0%} of a sample have colours")
        if self.lengths:
            low, middle, high = np.percentile(self.lengths, (5, 50, 95)).round().astype(int)
            told.append(f"{middle} words and marks in the middle (5 to 95 %: {low} to {high})")
        told.append(explain(self.rejections))
        return told + [f"  {one.name}: {one.message}" for one in self.rejections if not one.ignored][:5]

    def warn_of_rare(self, limit: str, least: int | None) -> list[str]:
        """Which labels will stop the pipeline: too few to train on and to cut from, or fewer than `limit` says."""
        parts = ["train", *(name for name in HELD_OUT if name not in self.splits)]
        rare = []
        for label, count in reversed(self.counts.most_common()):
            held = self.held_out[label]
            if count - held < len(parts) or (least is not None and count < least):
                rare.append(f"{label} {count - held}" + (f" and {held} held out" if held else ""))
        if not rare:
            return []
        needed = f"at least {len(parts)} each are needed for {', '.join(parts)}"
        needed += "" if least is None else f", and {least} in all ({limit})"
        return [f"too few, which stops the pipeline: {', '.join(rare[:5])}; {needed}; leave them out: --labels"]


def take_survey(detected: Detected, task: Task) -> Survey:
    """Go through the whole source once; every label is counted, some thousand items are looked into."""
    survey = Survey(task)
    draw = np.random.default_rng(0)
    found = tqdm(detected.read(task), "looking", unit="", mininterval=1, disable=None)
    for one in sieve(found, survey.rejections, None):
        survey.counts[one.label] += 1
        if one.split:
            survey.splits[one.split] += 1
            if one.split != "train":
                survey.held_out[one.label] += 1
        # By label, since a source mostly is sorted by them, and the first one would be most of the sample.
        if draw.random() * survey.counts[one.label] < SAMPLE:
            _look_into(one, survey)
    return survey


def _look_into(item: Item, survey: Survey) -> None:
    if isinstance(item.content, str):
        words = _WORD.findall(item.content.lower())
        survey.lengths.append(len(words))
        survey.words.update(words)
        survey.characters = max(survey.characters, len(item.content))
        return
    try:
        image = decode(item.content, MOST_PIXELS)
    except InputRejected as rejection:
        survey.rejections.append(Rejection(item.name, rejection.code, rejection.message))
        return
    survey.sides_px.append(max(image.size))
    survey.most_pixels = max(survey.most_pixels, image.width * image.height)
    small = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    survey.coloured += bool(np.ptp(small, axis=2).mean() > COLOURED)
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    survey.dark_borders += bool(border.mean() < 64)
