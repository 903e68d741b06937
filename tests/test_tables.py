"""A table gives a row per item, and of every line that is none its number and the reason."""

import csv
import io
import json
import os
import random
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from sources_of_users import lay, params, png

from convoy.sources import lines, tables
from convoy.sources.items import Item, Rejection, SourceRefused

ROWS = [{"text": "fine", "label": "good"}, {"text": 'a "bad",\nlong one', "label": "bad"}]


def read(path: Path, task: str = "text", **changes: object) -> list[Item | Rejection]:
    return list(tables.read(params(path, **changes), task))


def told(found: list[Item | Rejection]) -> dict[str, str]:
    return {one.name: one.message for one in found if isinstance(one, Rejection)}


def table(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"reviews{suffix}"
    mark = {".csv": ",", ".tsv": "\t"}.get(suffix)
    if mark:
        quoted = ['"' + row["text"].replace('"', '""') + '"' + mark + row["label"] for row in ROWS]
        return table(path, "\n".join([f"text{mark}label", *quoted]).encode())
    if suffix == ".jsonl":
        return table(path, "".join(json.dumps(row) + "\n" for row in ROWS).encode())
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_gives_the_same_items(tmp_path: Path, suffix: str) -> None:
    found = read(written(tmp_path, suffix))
    assert [(item.label, item.content, item.split) for item in found] == [
        (row["label"], row["text"], "") for row in ROWS
    ]
    numbers = {".csv": [2, 3], ".tsv": [2, 3]}.get(suffix, [1, 2])
    assert [item.name for item in found] == [f"reviews{suffix}:{number}" for number in numbers]


def test_every_bad_line_is_told_by_its_number_and_the_good_ones_are_kept(tmp_path: Path) -> None:
    path = table(
        tmp_path / "t.csv",
        b"text,label\n"  # 1
        b"good,a\n"
        b"caf\xe9,a\n"  # 3
        b"too,many,cells\n"  # 4
        b"few\n"  # 5
        b"nul\0,a\n"  # 6
        b'"two\nlines",b\n'  # 7, 8
        b'"never closed,b\n'  # 9
        b"still good,b\n"
        b"no label,\n"  # 11
        b"\n"
        b'quote "inside" a cell,b\n'  # 13
        b"last,a",
    )
    found = read(path)
    assert [item.content for item in found if isinstance(item, Item)] == [
        "good",
        "two\nlines",
        "still good",
        'quote "inside" a cell',
        "last",
    ]
    assert told(found) == {
        "t.csv:3": "not utf-8: byte 0xe9",
        "t.csv:4": "3 cells, the first line names 2 columns",
        "t.csv:5": "1 cells, the first line names 2 columns",
        "t.csv:6": "a NUL character",
        "t.csv:9": f"line 9 is no row of a table: ',' expected after '\"'; {lines.REMEDY}",
        "t.csv:11": "no label in the column 'label'",
    }


def test_a_quote_that_is_never_closed_costs_its_line_alone_however_long_the_file(tmp_path: Path) -> None:
    rows = b"".join(b"text %d,a\n" % number for number in range(3 * lines.MAX_ROW_LINES))
    found = read(table(tmp_path / "t.csv", b'text,label\n"open,a\n' + rows))
    reason = f"line 2 is no row of a table: a quote is not closed within {lines.MAX_ROW_LINES} lines; {lines.REMEDY}"
    assert told(found) == {"t.csv:2": reason}
    assert [item.name for item in found[1:]] == [f"t.csv:{number + 3}" for number in range(3 * lines.MAX_ROW_LINES)]


def test_a_cell_of_a_hundred_megabytes_is_one_rejected_line(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("wb") as stream:
        stream.write(b"text,label\n")
        for _ in range(100):
            stream.write(b"x" * 1_000_000)
        stream.write(b",a\nfine,a\n")
    found = read(tmp_path / "t.csv")
    assert [one.name for one in found] == ["t.csv:2", "t.csv:3"]
    assert isinstance(found[1], Item) and isinstance(found[0], Rejection)


LONG = b"x" * (lines.MAX_LINE_CHARACTERS + 500)


@pytest.mark.parametrize(
    ("row", "number"),
    [
        (b"a,%s\n" % LONG, 2),  # only a piece of its last cell would be short enough
        (b"%s,a\n" % LONG, 2),
        (b'"one\n%s",a\n' % LONG, 2),
        (b'"one\n%s ""quoted""\n,five",a\n' % LONG, 2),
        (b'"%s\ntwo",a\n' % LONG, 2),
        (b'\n\n"%s ""\n""two",a\n' % LONG, 4),
    ],
)
def test_a_row_with_a_line_that_is_too_long_is_rejected_whole(tmp_path: Path, row: bytes, number: int) -> None:
    path = table(tmp_path / "t.csv", b"text,label\n" + row + b"fine,a\n")
    found = read(path)
    after = 2 + row.count(b"\n")
    joined = f"lines {number} to {after - 1}, which a quote joins: " if b'"' in row else ""
    assert told(found) == {f"t.csv:{number}": f"{joined}longer than {lines.MAX_LINE_CHARACTERS} characters"}
    assert [one.name for one in found if isinstance(one, Item)] == [f"t.csv:{after}"]


def test_a_header_that_is_too_long_stops(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match=r"t\.csv:1: the first line, which must name the columns, is longer than"):
        read(table(tmp_path / "t.csv", b"text,label,%s\nfine,a,b\n" % LONG))


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_marks_and_newlines_of_every_system_are_read(tmp_path: Path, newline: bytes) -> None:
    content = newline.join([b"\xef\xbb\xbftext,label", b"fine,a", b"good,b", b""])
    found = read(table(tmp_path / "t.csv", content))
    assert [item.content for item in found] == ["fine", "good"]


def test_the_encoding_is_stated_and_never_guessed(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "text,label\nschön,a\n".encode("utf-16"))
    with pytest.raises(SourceRefused, match=r"begins with the mark of utf-16, stated is utf-8; state utf-16"):
        read(path)
    assert read(path, table={"encoding": "utf-16"})[0].content == "schön"
    path = table(tmp_path / "t.csv", "text,label\nschön,a\n".encode("latin-1"))
    assert told(read(path)) == {"t.csv:2": "not utf-8: byte 0xf6"}
    assert read(path, table={"encoding": "latin-1"})[0].content == "schön"
    with pytest.raises(SourceRefused, match="'klingon' is no encoding"):
        read(path, table={"encoding": "klingon"})


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", b"review,label\nfine,a\n")
    with pytest.raises(SourceRefused, match="no column 'text', it has review, label; name its columns"):
        read(path)
    assert read(path, table={"content": "review"})[0].content == "fine"


def test_what_is_wrong_with_a_column_that_nobody_asked_for_costs_no_row(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", b"note,text,label\ncaf\xe9,fine,a\nnul\0,good,b\n")
    assert [item.content for item in read(path)] == ["fine", "good"]
    assert [row for _, row in tables.rows_of(path, "utf-8")] == ["not utf-8: byte 0xe9", "a NUL character"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"text,label,text\n", "there twice"), (b'"text,label\nx,y', "is no row")],
)
def test_a_header_that_is_none_stops(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(SourceRefused, match=reason):
        read(table(tmp_path / "t.csv", content))


def test_labels_are_written_as_names_and_those_outside_the_set_are_ignored(tmp_path: Path) -> None:
    rows = [{"text": "x", "label": label} for label in (1.0, 0.0, float("nan"), None)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet", labels=("0", "2"))
    assert [one.label for one in found if isinstance(one, Item)] == ["0"]
    assert [one.code for one in found if isinstance(one, Rejection)] == ["label_not_wanted", "no_label", "no_label"]
    assert [one.ignored for one in found if isinstance(one, Rejection)] == [True, False, False]


def test_a_split_column_is_used_and_its_strange_cells_are_told(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", b"text,label,split\na,x,train\nb,x,TEST\nc,x,holdout\n")
    found = read(path)
    assert [one.split for one in found if isinstance(one, Item)] == ["train", "test"]
    assert told(found)["t.csv:4"].startswith("'holdout' is no split; known are train")
    assert {one.split for one in read(path, given_splits=False)} == {""}


def test_images_are_found_from_the_table_and_never_outside_its_folder(tmp_path: Path) -> None:
    lay(tmp_path, {"secret.png": png()})
    root = lay(tmp_path / "set", {"a/1.png": png(1), "2.png": png(2)})
    (root / "leak.png").symlink_to(tmp_path / "secret.png")
    (root / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "pipe.png")  # to read it would wait for ever
    names = ["a/1.png", "./2.png", "../secret.png", str(tmp_path / "secret.png"), "gone.png", "", "leak.png", "a"]
    names += ["loop.png", "pipe.png", "n" * 300, "nul\0"]
    table(root / "labels.csv", ("path,label\n" + "".join(f"{name},x\n" for name in names)).encode())
    found = read(root, "image", table={"content": "path"})
    assert [one.content for one in found if isinstance(one, Item)] == [png(1), png(2)]
    assert sorted(told(found)) == sorted(f"labels.csv:{line}" for line in range(4, 14))
    with pytest.raises(SourceRefused, match="name the folder that holds it"):
        read(root / "labels.csv", "image", table={"content": "path"})


def test_one_table_of_several_is_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        table(tmp_path / name, b"text,label\nx,y\n")
    with pytest.raises(SourceRefused, match=r"found: a\.csv, b\.csv"):
        read(tmp_path)
    assert read(tmp_path, table={"file": "b.csv"})[0].name == "b.csv:2"


def test_bad_lines_of_jsonl_and_damaged_parquet_are_told(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    path = table(tmp_path / "t.jsonl", b'{"text": "x", "label": "a"}\n{"text"\n[1]\n\n' + deep + b'\n{"label": "a"}\n')
    assert sorted(told(read(path))) == ["t.jsonl:2", "t.jsonl:3", "t.jsonl:5", "t.jsonl:6"]
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    with pytest.raises(SourceRefused, match="cannot be read"):
        read(table(tmp_path / "t.parquet", content[:-20]))


def plain_rows(count: int = 120, seed: int = 0) -> list[list[str]]:
    """Rows of text and label, without a quote or a delimiter in them."""
    draw = random.Random(seed)
    words = ["fine", "dull", "story", "hotel", "music", "actor"]
    return [[" ".join(draw.choices(words, k=8)) + f" {n}", draw.choice(["pos", "neg"])] for n in range(count)]


def with_stray_quotes(path: Path, rows: list[list[str]], opens: int, closes: int) -> Path:
    """A table by hand: the text of one row begins with a quote, that of a later one ends with one."""
    delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix]
    column = max(range(len(rows[0])), key=lambda index: len(rows[0][index]))
    rows = [list(row) for row in rows]
    rows[opens][column] = '"' + rows[opens][column]
    rows[closes][column] += '"'
    header = {"2": ["text", "label"], "3": ["id", "text", "label"]}[str(len(rows[0]))]
    return table(path, "".join(delimiter.join(row) + "\n" for row in [header, *rows]).encode())


@pytest.mark.parametrize(("opens", "closes"), [(10, 30), (10, 11), (0, 119), (118, 119)])
def test_a_bare_quote_in_a_tsv_swallows_no_line(tmp_path: Path, opens: int, closes: int) -> None:
    rows = plain_rows()
    found = read(with_stray_quotes(tmp_path / "t.tsv", rows, opens, closes))
    rows[opens][0], rows[closes][0] = '"' + rows[opens][0], rows[closes][0] + '"'
    assert [[one.content, one.label] for one in found if isinstance(one, Item)] == rows
    assert [one.name for one in found] == [f"t.tsv:{number}" for number in range(2, 122)]


@pytest.mark.parametrize(("opens", "closes"), [(10, 30), (10, 11), (0, 119), (118, 119)])
@pytest.mark.parametrize("layout", [("text", "label"), ("label", "text"), ("id", "text"), ("id", "text", "label")])
def test_lines_between_stray_quotes_are_told(tmp_path: Path, opens: int, closes: int, layout: tuple[str, ...]) -> None:
    rows = [{"id": str(n), "text": text, "label": label} for n, (text, label) in enumerate(plain_rows())]
    rows[opens]["text"], rows[closes]["text"] = '"' + rows[opens]["text"], rows[closes]["text"] + '"'
    content = "".join(",".join(row[column] for column in layout) + "\n" for row in rows)
    found = dict(tables.rows_of(table(tmp_path / "t.csv", f"{','.join(layout)}\n{content}".encode()), "utf-8"))
    assert list(found) == list(range(2, 122)), "items and rejected lines are all lines"
    assert [n for n, row in found.items() if isinstance(row, str)] == list(range(opens + 2, closes + 3))
    reason = str(found[opens + 2])
    for words in (f"stray quotes join lines {opens + 2} to {closes + 2}", "expected: ", "remove the stray ones"):
        assert words in reason


def test_swallowed_lines_are_told_beside_broken_ones(tmp_path: Path) -> None:
    rows = [*plain_rows(9), ["a, b", "pos"], ["no label", ""], ["", ""], *plain_rows(9, seed=1)]
    found = read(with_stray_quotes(tmp_path / "t.csv", rows, 5, 14))
    assert [one.name for one in found if isinstance(one, Rejection)] == [f"t.csv:{n}" for n in range(7, 17)]
    assert len(found) == len(rows)


def test_a_rejected_row_of_several_lines_names_them(tmp_path: Path) -> None:
    content = b'text,label\nfine,a\n"one\n\ntwo",a,b\n"b\xe4d\none",a\ngood,b\n'
    assert told(read(table(tmp_path / "t.csv", content))) == {
        "t.csv:3": "lines 3 to 5, which a quote joins: 3 cells, the first line names 2 columns",
        "t.csv:6": "lines 6 to 7, which a quote joins: not utf-8: byte 0xe4",
    }


def free_texts(columns: int, delimiter: str) -> list[str]:
    """A hundred lines in which nothing recurs."""
    drawn = [[text for text, _ in plain_rows(100, seed)] for seed in range(columns)]
    return [delimiter.join(cells) for cells in zip(*drawn, strict=True)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize(("opens", "closes"), [(10, 30), (10, 11), (0, 99)])
def test_no_line_of_free_texts_vanishes_between_quotes(
    tmp_path: Path, suffix: str, columns: int, opens: int, closes: int
) -> None:
    mark = {".csv": ",", ".tsv": "\t"}[suffix]
    for column in range(columns):
        content = [line.split(mark) for line in free_texts(columns, mark)]
        content[opens][column] = '"' + content[opens][column]
        content[closes][column] += '"'
        header = mark.join(("text", "title", "note")[:columns])
        path = table(tmp_path / f"t{suffix}", "\n".join([header, *(mark.join(row) for row in content)]).encode())
        found = dict(tables.rows_of(path, "utf-8"))
        assert list(found) == list(range(2, 102))
        joined = set(range(opens + 2, closes + 3)) if columns == 1 or suffix == ".csv" else set()
        assert rejected_lines(found) == joined


@pytest.mark.parametrize("last", ["pos", "1"])
@pytest.mark.parametrize("inner", ["so, so", "so,so", "no comma", '""'])
def test_a_lost_quote_on_each_side_swallows_nothing(tmp_path: Path, last: str, inner: str) -> None:
    rows = [f'"{text}, {text}",{last}' for text, _ in plain_rows(100)]
    rows[10], rows[11], rows[12] = f'"fine, text,{last}', f"{inner},{last}", f'fine, text",{last}'
    path = table(tmp_path / "t.csv", "\n".join(["text,label", *rows]).encode())
    found = dict(tables.rows_of(path, "utf-8"))
    assert list(found) == list(range(2, 102)) and {12, 14} <= rejected_lines(found) <= {12, 13, 14}


def test_prose_in_free_columns_is_no_row(tmp_path: Path) -> None:
    texts = ["Well, no\nYes, really\nSo, so", "Dear Sir,\nhello", "One,\ntwo, three,\nfour", "Total:\n10 000, or so"]
    rows = [[f"{text}\nby {n}", f"title {n} {'x' * n}\nof two, lines"] for n, text in enumerate(texts * 9)]
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["text", "title"], *rows])
    found = [row for _, row in tables.rows_of(tmp_path / "t.csv", "utf-8")]
    assert [row if isinstance(row, str) else list(row.values()) for row in found] == rows


def test_spaced_tables_swallow_nothing_either(tmp_path: Path) -> None:
    rows = free_texts(2, ", ")
    rows[10], rows[30] = '"' + rows[10], rows[30].replace(", ", '",')
    path = table(tmp_path / "t.csv", "\n".join(["text,title", *rows]).encode())
    assert rejected_lines(dict(tables.rows_of(path, "utf-8"))) == set(range(12, 33))


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_header_that_swallows_lines_stops(tmp_path: Path, suffix: str) -> None:
    rows = [f"text {n},pos,note {n}" for n in range(100)]
    rows[50] += '"'
    content = "\n".join(['text,label,"note', *rows]).replace(",", {".csv": ",", ".tsv": "\t"}[suffix])
    with pytest.raises(SourceRefused, match=r"t\..sv:1: .* has a quote that closes in line 52 only; remove it where"):
        read(table(tmp_path / f"t{suffix}", content.encode()))


def test_blank_lines_of_one_column_are_empty_cells(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", b"text\nfoo\n\nbar\n")
    assert list(tables.rows_of(path, "utf-8")) == [(2, {"text": "foo"}), (3, {"text": ""}), (4, {"text": "bar"})]
    path = table(tmp_path / "t.csv", b"text,label\nfoo,a\n\nbar,b\n")
    assert [number for number, _ in tables.rows_of(path, "utf-8")] == [2, 4]


def test_a_quote_that_opens_no_cell_is_text_in_a_tsv(tmp_path: Path) -> None:
    content = b'text\tlabel\n"Oh" he said\ta\n"open\tb\n"all of it"\ta\n"one\ttwo\tthree\n"two\n"\tb'
    found = read(table(tmp_path / "t.tsv", content))
    assert [one.content for one in found if isinstance(one, Item)] == ['"Oh" he said', '"open', "all of it", "two\n"]
    assert sorted(told(found)) == ["t.tsv:5"]


def test_texts_of_many_lines_are_no_stray_quotes(tmp_path: Path) -> None:
    texts = [
        "Great food, nice place\nWould come again, pos",
        "Dear Sir,\nhello",
        "\n".join(f"page {n}, line {n}" for n in range(900)),
        "Total:\n10,000 dollars",
        'he said "one"\n\n"two", three\n',
    ]
    rows = [[str(n), texts[n % len(texts)], ("pos", "neg", "")[n % 3]] for n in range(60)]
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "text", "label"], *rows])
    assert [
        list(row.values()) for _, row in tables.rows_of(tmp_path / "t.csv", "utf-8") if isinstance(row, dict)
    ] == rows
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["text", "label"], *(row[1:] for row in rows)])
    assert sum(isinstance(row, dict) for _, row in tables.rows_of(tmp_path / "t.csv", "utf-8")) == len(rows)


characters = st.characters(codec="utf-8", exclude_characters="\0\r")
texts = st.text(characters) | st.text(st.sampled_from('ab ,"\n\t'), max_size=12)


@pytest.mark.process
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(texts, st.sampled_from(["pos", "neg"]))))
def test_what_a_csv_library_writes_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("table") / f"t{suffix}"
    # Where nothing recurs, delimiters in most lines of a text are taken for rows: labels tell what rows are.
    rows = [*rows, *((text, label) for text, label in plain_rows(5))]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=",\t"[suffix == ".tsv"])
        writer.writerows([("text", "label"), *rows])
    assert [(item.content, item.label) for item in read(path)] == rows


@dataclass(frozen=True)
class Written:
    """A row as it stands in a table: its cells, and the numbers of its lines."""

    cells: dict[str, str]
    numbers: range


def write_rows(columns: tuple[str, ...], rows: list[dict[str, str]], delimiter: str) -> tuple[str, list[Written]]:
    content, written = delimiter.join(columns) + "\n", []
    for row in rows:
        stream = io.StringIO(newline="")
        cells = {column: row[column] for column in columns}
        csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerow(cells.values())
        number = content.count("\n") + 1
        content += stream.getvalue()
        written.append(Written(cells, range(number, content.count("\n") + 1)))
    return content, written


def rejected_lines(rows: dict[int, object]) -> set[int]:
    numbers: set[int] = set()
    for number, row in rows.items():
        if isinstance(row, str):
            joined = re.match(r"lines (\d+) to (\d+), which", row)
            numbers |= set(range(int(joined[1]), int(joined[2]) + 1)) if joined else {number}
    return numbers


@pytest.mark.process
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize(
    "columns", [("text",), ("text", "label"), ("label", "text"), ("id", "text"), ("id", "text", "label")]
)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_stray_quotes_lose_no_line_silently(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, columns: tuple[str, ...], data: st.DataObject
) -> None:
    # Before a delimiter or the end of a line even the quote that opens a text closes what a stray one had opened.
    text = texts.filter(lambda drawn: not re.match('"*[,\n\t]', drawn) and (len(columns) > 1 or drawn != ""))
    found = data.draw(st.lists(st.tuples(text, st.sampled_from(["pos", "neg"])), min_size=1, max_size=8))
    cells = [*found, *((text, label) for text, label in plain_rows(20))]
    rows = [{"id": str(n), "text": text, "label": label} for n, (text, label) in enumerate(cells)]
    content, written = write_rows(columns, rows, ",\t"[suffix == ".tsv"])
    mark = ",\t"[suffix == ".tsv"]
    start = content.index("\n") + 1
    ends = [n for n in range(start, len(content) + 1) if {*content[n - 1 : n + 1]} & {mark, "\n"}]
    places = sorted(
        data.draw(st.lists(st.sampled_from(ends) | st.integers(start, len(content)), min_size=1, max_size=2))
    )
    path = tmp_path_factory.mktemp("table") / f"t{suffix}"
    cut = [0, *places, len(content)]
    path.write_text('"'.join(content[a:b] for a, b in pairwise(cut)), encoding="utf-8", newline="")
    numbers = {content.count("\n", 0, place) + 1 for place in places}
    read_rows = dict(tables.rows_of(path, "utf-8"))
    told_lines = rejected_lines(read_rows)
    for one in written:
        if numbers & set(one.numbers):  # a row with such a quote may have another text
            assert told_lines & set(one.numbers) or one.numbers[0] in read_rows
        else:
            assert read_rows.get(one.numbers[0]) == one.cells or told_lines & set(one.numbers)


PIECES = [b",", b'"', b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"a", b"word ", b'""', b"\\", b"=1"]


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.proof)])
def test_generated_tables_give_items_and_reasons_and_never_a_traceback(tmp_path: Path, count: int) -> None:
    draw = random.Random(0)
    items = rejections = refused = 0
    for _ in range(count):
        start = draw.choice([b"text,label\n", b"text,label\n", b"text,label\n", b""])
        content = b"".join(draw.choice(PIECES) for _ in range(draw.randint(0, 60)))
        try:
            found = read(table(tmp_path / "t.csv", start + content))
        except SourceRefused:
            refused += 1
            continue
        items += sum(isinstance(one, Item) for one in found)
        rejections += sum(isinstance(one, Rejection) for one in found)
    assert items > count / 10 and rejections > count and refused > count / 10
