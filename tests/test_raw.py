"""What a fetch stage writes holds every item and every rejection; labels that cannot be meant stop it."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from convoy.core import paths
from convoy.core.spreadsheet import escape, unescape
from convoy.data import raw
from convoy.kinds.registry import KINDS
from convoy.sources.items import Item, Rejection, SourceRefused


def items(*labels: str) -> Iterator[Item]:
    for index, label in enumerate(labels):
        yield Item(f"{index}", label, "test" if index == 0 else "", f"text {index}")


def test_items_come_back_in_their_order_with_labels_and_splits(tmp_path: Path) -> None:
    count = 2 * raw.BATCH + 5
    raw.write(tmp_path / "raw", "notes", "text", items(*(f"{index % 12}" for index in range(count))), None)
    found = raw.RawItems(tmp_path / "raw")
    assert found.labels == tuple(map(str, range(12))), "whole numbers by their value"
    assert len(found) == count and found.content(count - 1) == f"text {count - 1}" and found.name(7) == "7"
    assert [text for batch in found.contents() for text in batch] == [f"text {index}" for index in range(count)]
    assert found.label_of.tolist() == [index % 12 for index in range(count)]
    assert found.given.tolist() == [paths.SPLITS.index("test")] + [-1] * (count - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_ends_at_so_many_bytes_or_items_and_items_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def sizes(folder: Path) -> list[int]:
        with pa.ipc.open_file(folder / raw.ITEMS) as reader:
            return [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)]

    def write(folder: Path, lengths: list[int]) -> list[str | bytes]:
        contents: list[str | bytes] = ["x" * length if kind == "text" else b"x" * length for length in lengths]
        named = (Item(f"{index}", "ab"[index % 2], "", content) for index, content in enumerate(contents))
        raw.write(folder, "set", kind, named, None)
        return contents

    write(tmp_path / "small", [1] * 1005)
    assert sizes(tmp_path / "small") == [500, 500, 5]
    monkeypatch.setattr(raw, "BATCH_BYTES", 1000)
    contents = write(tmp_path / "large", [400, 400, 400, 5000, 1, 999, *[1] * 502, 3])
    assert sizes(tmp_path / "large") == [3, 1, 2, 500, 3]
    assert [one for batch in raw.RawItems(tmp_path / "large").contents() for one in batch] == contents


FORMULAS = ["=1+1", "+1-2", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\r\n=1", "\n=1", " =1", "\u00a0@x"]
FORMULAS += [f"{character}1+1" for character in "\uff1d\uff0b\uff0d\uff20"]


def test_rejections_come_back_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    plain = [Rejection("a,b\n.png", "unreadable", "why"), Rejection("'=1", "hidden", "x", True)]
    formulas = [Rejection(name, "unreadable", f"{name} is none") for name in FORMULAS]

    def found() -> Iterator[Item | Rejection]:
        yield from [*plain, *formulas]
        yield from items("a", "b")

    raw.write(tmp_path / "raw", "notes", "text", found(), None)
    assert raw.RawItems(tmp_path / "raw").rejections == [*plain, *formulas]
    with (tmp_path / "raw" / raw.REJECTED).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[len(plain) :]
    assert all(row[column].startswith("'") for row in rows for column in ("name", "message"))
    assert raw.explain(plain) == "1 rejected {'unreadable': 1}, 1 ignored {'hidden': 1}"


def test_an_escaped_cell_is_read_back_as_it_was() -> None:
    cells = ["", "'", "''=1", "it's", "-1", "+2.5", "-", "1=1", *FORMULAS, *(f"'{formula}" for formula in FORMULAS)]
    assert [unescape(escape(cell)) for cell in cells] == cells and len({escape(cell) for cell in cells}) == len(cells)
    assert [escape(cell) for cell in ("-1", "+2.5", "1=1", "a-b")] == ["-1", "+2.5", "1=1", "a-b"]


@pytest.mark.parametrize(
    ("labels", "wanted", "reason"),
    [
        ((), None, "no usable item was found"),
        (("a", "a"), None, "only the label 'a'"),
        (("cat", "Cat", "dog"), None, r"'Cat' \(1 items\), 'cat' \(1 items\) differ in case"),
        (tuple(map(str, range(1001))), None, "1001 labels were found, at most 1000"),
        (("a", "b"), ("a", "b", "c"), "no item has the label 'c'"),
    ],
)
def test_labels_that_cannot_be_meant_stop_and_leave_nothing(
    tmp_path: Path, labels: tuple[str, ...], wanted: tuple[str, ...] | None, reason: str
) -> None:
    with pytest.raises(SourceRefused, match=reason):
        raw.write(tmp_path / "raw", "notes", "text", items(*labels), wanted)
    assert not list(tmp_path.iterdir())


def test_what_was_rejected_before_labels_stop_is_listed_whole_until_it_goes_well(tmp_path: Path) -> None:
    rejections = [Rejection(f"{number}.png", "unreadable", "why") for number in range(30)]

    def found(*labels: str) -> Iterator[Item | Rejection]:
        yield from rejections
        yield from items(*labels)

    listed = tmp_path / "raw.rejected.csv"
    with pytest.raises(SourceRefused) as error:
        raw.write(tmp_path / "raw", "notes", "text", found("a", "b"), ("a", "b", "c"))
    for words in ("no item has the label 'c'", "30 rejected {'unreadable': 30}", str(listed), "0.png: why"):
        assert words in str(error.value)
    assert raw.read_rejections(listed) == rejections and list(tmp_path.iterdir()) == [listed]
    raw.write(tmp_path / "raw", "notes", "text", found("a", "b"), ("a", "b"))
    assert not listed.exists()
    listed.touch()
    with pytest.raises(SourceRefused):
        raw.write(tmp_path / "raw", "notes", "text", items("a"), None)
    assert not listed.exists(), "nothing was rejected this time"


def test_labels_of_params_are_in_their_order_and_others_are_ignored_and_told(tmp_path: Path) -> None:
    raw.write(tmp_path / "raw", "notes", "text", items("a", "b", "c", "b"), ("b", "a"))
    found = raw.RawItems(tmp_path / "raw")
    assert found.labels == ("b", "a") and found.label_of.tolist() == [1, 0, 0]
    assert [(one.name, one.code, one.ignored) for one in found.rejections] == [("2", "label_not_wanted", True)]


def test_a_lone_surrogate_in_a_text_or_in_its_label_is_rejected(tmp_path: Path) -> None:
    found = [
        Item("1", "a", "", "x\ud800"),
        Item("2", "b\udfff", "", "x"),
        Item("3", "a", "", "x"),
        Item("4", "b", "", "x"),
    ]
    raw.write(tmp_path / "raw", "notes", "text", iter(found), None)
    assert [(one.name, one.code) for one in raw.RawItems(tmp_path / "raw").rejections] == [
        ("1", "invalid_text"),
        ("2", "invalid_label"),
    ]
