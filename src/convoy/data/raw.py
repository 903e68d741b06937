"""Whatever source the data comes from: one Arrow file of its items, a list of what could not be one, and the labels."""

import csv
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from convoy.core import atomic, spreadsheet
from convoy.core.paths import SPLITS, Task
from convoy.kinds import arrow
from convoy.sources.items import Item, ItemsAndRejections, Rejection, SourceRefused

ITEMS, REJECTED, LABELS = "items.arrow", "rejected.csv", "labels.json"
BATCH = 500  # items in memory at once, or fewer:
BATCH_BYTES = 64_000_000  # the one that passes this is a batch's last; a column of one cannot hold 2 GiB
MAX_LABELS = 1_000
REJECTED_COLUMNS = ("name", "ignored", "code", "message")


class RawItems:
    """What a fetch stage wrote: items in the source's order, mapped into memory, and the rejections."""

    def __init__(self, folder: Path) -> None:
        self._table = arrow.read(folder / ITEMS)
        self.labels: tuple[str, ...] = tuple(json.loads((folder / LABELS).read_bytes()))
        self.rejections = read_rejections(folder / REJECTED)
        self.label_of = _indices(self._table["label"], self.labels)
        self.given = _indices(self._table["split"], SPLITS)  # -1 where the source does not say

    def __len__(self) -> int:
        return len(self.label_of)

    def name(self, row: int) -> str:
        """Where an item stands in its source."""
        return str(self._table["name"][row].as_py())

    def content(self, row: int) -> bytes | str:
        """An encoded image or a text."""
        found: bytes | str = self._table["content"][row].as_py()
        return found

    def contents(self) -> Iterator[list[bytes | str]]:
        """All contents in their order, as many at a time as the fetch stage held: some hundred, or about 64 MB."""
        for batch in self._table.to_batches():
            yield batch["content"].to_pylist()


def write(folder: Path, task: Task, found: ItemsAndRejections, labels: tuple[str, ...] | None) -> None:
    """Write what a source gives as a folder that appears whole or not at all; labels of None are put in order here.

    Raises SourceRefused where there are fewer than two labels or too many, or two that differ in their case alone;
    what was rejected until then is listed beside the folder, where that is not made.
    """
    kind = pa.binary() if task == "image" else pa.string()
    schema = pa.schema([("name", pa.string()), ("label", pa.string()), ("split", pa.string()), ("content", kind)])
    rejections: list[Rejection] = []
    counts: Counter[str] = Counter()
    items = sieve(tqdm(found, desc=f"{task}: reading", unit="", mininterval=1), rejections, labels)
    with atomic.new_folder(folder) as temporary:
        with pa.ipc.new_file(str(temporary / ITEMS), schema) as writer:
            for batch in _batches(items):
                counts.update(item.label for item in batch)
                columns = zip(*((item.name, item.label, item.split, item.content) for item in batch), strict=True)
                writer.write_batch(pa.record_batch([list(column) for column in columns], schema=schema))
        try:
            names = require_labels(counts, labels)
        except SourceRefused as error:
            raise SourceRefused(f"{error}; {explain(rejections)}{_list_whole(folder, rejections)}") from None
        (temporary / LABELS).write_bytes(atomic.to_json(names))
        (temporary / REJECTED).write_bytes(to_csv(rejections))
    _listed(folder).unlink(missing_ok=True)
    print(f"{task}: {counts.total()} items of {len(names)} labels; {explain(rejections)}")


def to_csv(rejections: list[Rejection]) -> bytes:
    """One line per rejection, for people and for the next stage."""
    rows = [(one.name, int(one.ignored), one.code, one.message) for one in rejections]
    return spreadsheet.to_csv([REJECTED_COLUMNS, *rows]).encode("utf-8", "backslashreplace")


def read_rejections(path: Path) -> list[Rejection]:
    """What `to_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    plain = spreadsheet.unescape
    return [Rejection(plain(row["name"]), row["code"], plain(row["message"]), row["ignored"] == "1") for row in rows]


def explain(rejections: list[Rejection]) -> str:
    """How many were rejected and ignored, by their code."""
    parts = []
    for word, ignored in (("rejected", False), ("ignored", True)):
        counts = Counter(one.code for one in rejections if one.ignored is ignored)
        parts.append(f"{counts.total()} {word}" + (f" {dict(counts.most_common())}" if counts else ""))
    return ", ".join(parts)


def sieve(
    found: Iterable[Item | Rejection], rejections: list[Rejection], labels: tuple[str, ...] | None
) -> Iterator[Item]:
    """The items that can be kept; all else goes to `rejections`."""
    for one in found:
        if isinstance(one, Rejection):
            rejections.append(one)
        elif labels is not None and one.label not in labels:
            told = f"the label {one.label[:80]!r} is not among the labels of params.yaml"
            rejections.append(Rejection(one.name, "label_not_wanted", told, ignored=True))
        elif _has_surrogate(one.label):
            rejections.append(Rejection(one.name, "invalid_label", "the label holds a lone surrogate"))
        elif isinstance(one.content, str) and _has_surrogate(one.content):
            rejections.append(Rejection(one.name, "invalid_text", "the text holds a lone surrogate"))
        else:
            yield one


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.content)  # of a text its characters, which take up to 4 bytes
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def require_labels(counts: Counter[str], labels: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names of the labels in their order.

    Raises SourceRefused where there are fewer than two or too many, or two that differ in their case alone.
    """
    if len(counts) < 2:
        one = f"only the label {next(iter(counts))!r}" if counts else "no usable item"
        raise SourceRefused(
            f"{one} was found, at least two labels are expected: a folder per label, or a table with a column of them"
        )
    if len(counts) > MAX_LABELS:
        raise SourceRefused(
            f"{len(counts)} labels were found, at most {MAX_LABELS} are allowed; is it the right column?"
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        alike[unicodedata.normalize("NFKC", label).casefold()].append(label)
    for group in alike.values():
        if len(group) > 1:
            told = ", ".join(f"{label!r} ({counts[label]} items)" for label in group)
            raise SourceRefused(f"the labels {told} differ in case or spelling alone; make them one, or rename them")
    missing = [label for label in labels or () if not counts[label]]
    if missing:
        raise SourceRefused(
            f"no item has the label {missing[0]!r}, which params.yaml lists; found: {', '.join(sorted(counts))}"
        )
    return labels or tuple(sorted(counts, key=_order))


def _order(label: str) -> tuple[bool, int, str]:
    """Whole numbers by their value, before all other names."""
    number = label.isascii() and label.isdigit()
    return (not number, int(label) if number else 0, label)


def _listed(folder: Path) -> Path:
    """Where a refused source's rejections are listed: DVC, which keeps the folder, knows nothing of it."""
    return folder.with_name(f"{folder.name}.{REJECTED}")


def _list_whole(folder: Path, rejections: list[Rejection]) -> str:
    """List what was rejected, and say where the list is and how it begins; nothing where nothing was."""
    if not rejections:
        _listed(folder).unlink(missing_ok=True)  # an earlier run's
        return ""
    atomic.write_bytes(_listed(folder), to_csv(rejections))
    first = "".join(f"\n  {one.name}: {one.message}" for one in rejections[:5])
    return f"\n  {_listed(folder)} names each with its reason, first:{first}"


def _indices(column: pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.int64]:
    known = {name: index for index, name in enumerate(names)}
    return np.array([known.get(name, -1) for name in column.to_pylist()], dtype=np.int64)
