"""Raw data, the same for every source: one Arrow file of items, a list of rejections, and the labels."""

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

from convoy.core import arrow, atomic, spreadsheet
from convoy.core.paths import SPLITS
from convoy.kinds.registry import module
from convoy.sources.items import Item, ItemsAndRejections, Rejection, SourceRefused

ITEMS, REJECTED, LABELS = "items.arrow", "rejected.csv", "labels.json"
BATCH = 500  # items in memory at once, or fewer:
BATCH_BYTES = 64_000_000  # the item that passes this is a batch's last; a column of a batch cannot hold 2 GiB
MAX_LABELS = 1_000
REJECTED_COLUMNS = ("name", "ignored", "code", "message")


class RawItems:
    """The output of a fetch stage: items in the source's order, mapped into memory, and the rejections."""

    def __init__(self, folder: Path) -> None:
        self._table = arrow.read(folder / ITEMS)
        self.labels: tuple[str, ...] = tuple(json.loads((folder / LABELS).read_bytes()))
        self.rejections = read_rejections(folder / REJECTED)
        self.label_of = _to_indices(self._table["label"], self.labels)
        self.given = _to_indices(self._table["split"], SPLITS)  # -1 where the source does not say

    def __len__(self) -> int:
        return len(self.label_of)

    def name(self, row: int) -> str:
        """Where an item stands in its source."""
        return str(self._table["name"][row].as_py())

    def content(self, row: int) -> bytes | str:
        """An encoded image or a text."""
        content: bytes | str = self._table["content"][row].as_py()
        return content

    def contents(self) -> Iterator[list[bytes | str]]:
        """All contents in their order, as many at a time as the fetch stage held: some hundred, or about 64 MB."""
        for batch in self._table.to_batches():
            yield batch["content"].to_pylist()


def write(folder: Path, title: str, kind: str, entries: ItemsAndRejections, labels: tuple[str, ...] | None) -> None:
    """Write what a source yields as a folder that appears whole or not at all; labels of None are sorted here.

    Raises SourceRefused where there are fewer than two labels or too many, or two that differ in their case alone;
    then no folder is made, and the rejections are listed beside it.
    """
    content = pa.binary() if module(kind, "items.raw").RAW is bytes else pa.string()
    schema = pa.schema([("name", pa.string()), ("label", pa.string()), ("split", pa.string()), ("content", content)])
    rejections: list[Rejection] = []
    counts: Counter[str] = Counter()
    items = sieve(tqdm(entries, desc=f"{title}: reading", unit="", mininterval=1), rejections, labels)
    with atomic.new_folder(folder) as temporary:
        with pa.ipc.new_file(str(temporary / ITEMS), schema) as writer:
            for batch in _batches(items):
                counts.update(item.label for item in batch)
                columns = zip(*((item.name, item.label, item.split, item.content) for item in batch), strict=True)
                writer.write_batch(pa.record_batch([list(column) for column in columns], schema=schema))
        try:
            names = require_labels(counts, labels)
        except SourceRefused as error:
            raise SourceRefused(f"{error}; {explain(rejections)}{_write_refused_list(folder, rejections)}") from None
        (temporary / LABELS).write_bytes(atomic.to_json(names))
        (temporary / REJECTED).write_bytes(to_csv(rejections))
    _refused_list_path(folder).unlink(missing_ok=True)
    print(f"{title}: {counts.total()} items of {len(names)} labels; {explain(rejections)}")


def to_csv(rejections: list[Rejection]) -> bytes:
    """A table of one line per rejection, for people and for the next stage."""
    rows = [(rejection.name, int(rejection.ignored), rejection.code, rejection.message) for rejection in rejections]
    return spreadsheet.to_csv([REJECTED_COLUMNS, *rows]).encode("utf-8", "backslashreplace")


def read_rejections(path: Path) -> list[Rejection]:
    """The rejections in a file that `to_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    plain = spreadsheet.unescape
    return [Rejection(plain(row["name"]), row["code"], plain(row["message"]), row["ignored"] == "1") for row in rows]


def explain(rejections: list[Rejection]) -> str:
    """How many inputs were rejected and ignored, by their code."""
    parts = []
    for word, ignored in (("rejected", False), ("ignored", True)):
        counts = Counter(rejection.code for rejection in rejections if rejection.ignored is ignored)
        parts.append(f"{counts.total()} {word}" + (f" {dict(counts.most_common())}" if counts else ""))
    return ", ".join(parts)


def sieve(
    entries: Iterable[Item | Rejection], rejections: list[Rejection], labels: tuple[str, ...] | None
) -> Iterator[Item]:
    """The items that can be kept; all others are appended to `rejections`."""
    for entry in entries:
        if isinstance(entry, Rejection):
            rejections.append(entry)
        elif labels is not None and entry.label not in labels:
            message = f"the label {entry.label[:80]!r} is not among the labels of params.yaml"
            rejections.append(Rejection(entry.name, "label_not_wanted", message, ignored=True))
        elif _has_surrogate(entry.label):
            rejections.append(Rejection(entry.name, "invalid_label", "the label holds a lone surrogate"))
        elif isinstance(entry.content, str) and _has_surrogate(entry.content):
            rejections.append(Rejection(entry.name, "invalid_text", "the text holds a lone surrogate"))
        else:
            yield entry


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
        names = f"only the label {next(iter(counts))!r}" if counts else "no usable item"
        raise SourceRefused(
            f"{names} was found, at least two labels are expected: a folder per label, or a table with a column of them"
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
            listed = ", ".join(f"{label!r} ({counts[label]} items)" for label in group)
            raise SourceRefused(f"the labels {listed} differ in case or spelling alone; make them one, or rename them")
    missing = [label for label in labels or () if not counts[label]]
    if missing:
        raise SourceRefused(
            f"no item has the label {missing[0]!r}, which params.yaml lists; found: {', '.join(sorted(counts))}"
        )
    return labels or tuple(sorted(counts, key=_label_order))


def _label_order(label: str) -> tuple[bool, int, str]:
    """Whole numbers by their value, before all other names."""
    is_number = label.isascii() and label.isdigit()
    return (not is_number, int(label) if is_number else 0, label)


def _refused_list_path(folder: Path) -> Path:
    """Where a refused source's rejections are listed: DVC, which keeps the folder, knows nothing of it."""
    return folder.with_name(f"{folder.name}.{REJECTED}")


def _write_refused_list(folder: Path, rejections: list[Rejection]) -> str:
    """Write the list of rejections; returns where it is and how it begins, '' where there are none."""
    if not rejections:
        _refused_list_path(folder).unlink(missing_ok=True)  # an earlier run's
        return ""
    atomic.write_bytes(_refused_list_path(folder), to_csv(rejections))
    examples = "".join(f"\n  {rejection.name}: {rejection.message}" for rejection in rejections[:5])
    return f"\n  {_refused_list_path(folder)} names each with its reason, first:{examples}"


def _to_indices(column: pa.ChunkedArray, names: tuple[str, ...]) -> NDArray[np.int64]:
    index_of = {name: index for index, name in enumerate(names)}
    return np.array([index_of.get(name, -1) for name in column.to_pylist()], dtype=np.int64)
