"""`init` sees what data is: its kind, its form, its columns, its labels; and says what will stop the pipeline."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from init_verb import PACKAGED, fetch, init, values
from sources_of_users import (
    TEXTS,
    folder_of_images,
    folder_of_texts,
    idx,
    lay,
    news,
    params,
    png,
    rows,
    write_table,
    zipped,
)

from convoy.core import paths
from convoy.core.params import read_section
from convoy.operations.init import source
from convoy.operations.init.source import Detected, Stated
from convoy.operations.init.survey import take_survey
from convoy.sources import tables
from convoy.sources.items import Item, SourceParams, SourceRefused


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the packaged params.yaml."""
    shutil.copy(PACKAGED, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def detect(path: Path, kind: str | None = None) -> Detected:
    return source.detect(Stated(path, kind))


def found_columns(detected: Detected) -> tuple[str, str]:
    return detected.params.table.content, detected.params.table.label


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("text", "label"), [("text", "label"), ("Review", "Sentiment"), ("quote", "verdict")])
def test_columns_are_found_by_name_or_content(place: Path, suffix: str, text: str, label: str) -> None:
    path = write_table(place / f"t{suffix}", rows(text, label))
    detected = detect(path)
    assert (detected.kind, detected.source, detected.params.path) == ("text", "table", path)
    assert found_columns(detected) == (text, label)
    assert take_survey(detected).counts == {"good": 300, "bad": 300}


def laid_sources(place: Path) -> dict[str, tuple[str, str, Path]]:
    """By a name: the kind, the source and the path of every form that data can have."""
    texts = folder_of_texts(place / "texts")
    images = folder_of_images(place / "images", {"a": 3, "b": 3})
    pixels, labels = np.zeros((6, 8, 8), np.uint8), np.arange(6, dtype=np.uint8) % 2
    np.savez(place / "set.npz", x_train=pixels, y_train=labels)
    parts = {f"{part}-{what}": idx(content) for part in ("train", "t10k") for what, content in
             (("images-idx3-ubyte.gz", pixels), ("labels-idx1-ubyte.gz", labels))}  # fmt: skip
    packed = {
        root.name: zipped(
            place / f"{root.name}.zip",
            {str(file.relative_to(place)): file.read_bytes() for file in sorted(root.rglob("*.*"))},
        )
        for root in (texts, images)
    }
    named = folder_of_images(place / "named", {"img": 4})
    write_table(named / "labels.csv", [{"photo": f"img/{n}.png", "kind": "ab"[n % 2]} for n in range(4)])
    flat = lay(place / "flat", {f"{n}.png": png(n) for n in range(4)})
    write_table(flat / "labels.csv", [{"photo": f"{n}.png", "kind": "ab"[n % 2]} for n in range(4)])
    return {
        "a folder of texts": ("text", "folder", texts),
        "a folder of images": ("image", "folder", images),
        "an archive of texts": ("text", "folder", packed["texts"]),
        "an archive of images": ("image", "folder", packed["images"]),
        "an npz": ("image", "arrays", place / "set.npz"),
        "idx files": ("image", "arrays", lay(place / "idx", parts)),
        "a table of texts": ("text", "table", write_table(place / "t.csv", rows("text", "label", 9))),
        "a table of texts in its folder": ("text", "table", write_table(made(place / "t") / "t.tsv", rows("a", "b"))),
        "a table beside folders of images": ("image", "table", named),
        "a table of images": ("image", "table", named / "labels.csv"),
        "a table among images": ("image", "table", flat),
    }


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_each_form_of_a_source_tells_its_kind(place: Path) -> None:
    for name, (kind, form, path) in laid_sources(place).items():
        detected = detect(path)
        assert (detected.kind, detected.source) == (kind, form), name
        assert len(take_survey(detected).counts) == 2, name
        assert detect(path, kind) == detected, name


def test_an_image_is_seen_by_its_content(place: Path) -> None:
    files = {f"{label}/{n}": png(n) for label in "ab" for n in range(3)}
    assert detect(lay(place / "without suffixes", files)).kind == "image"
    broken = lay(place / "broken", {f"{label}/{n}.png": b"no image" for label in "ab" for n in range(3)})
    code, _, error = init(broken)
    assert code == 1 and "broken is of no kind that is known (files: 6 .png); image: PNG, JPEG or WebP" in error
    assert "text: files that end in .txt" in error and "; --kind states it" in error
    code, _, error = init(broken, "--kind", "image")
    assert code == 1 and "broken: nothing of a sample can be used; 6 rejected {'undecodable_image': 6}" in error


def test_strays_do_not_change_the_kind(place: Path) -> None:
    root = folder_of_images(place / "set", {"a": 30, "b": 30})
    lay(root, {"README.txt": b"read me", "a/notes.txt": b"a note", ".hidden/x.txt": b"x"})
    assert detect(root).kind == "image"


def test_a_path_of_both_kinds_is_refused(place: Path) -> None:
    root = folder_of_images(folder_of_texts(place / "mixed", 4), {"good": 4, "bad": 4})
    code, _, error = init(root)
    assert (code, error.count("\n")) == (1, 1)
    assert "mixed could be image or text (files: 8 .png, 8 .txt); say which with --kind" in error
    told = {"image": "8 rejected {'undecodable_image': 8}", "text": "8 usable items of 2 labels"}
    for kind, expected in told.items():
        code, out, _ = init(root, "--kind", kind)
        assert code == 0 and f"of kind {kind} (as --kind says)" in out and expected in out


def test_a_path_of_neither_kind_is_refused(place: Path) -> None:
    (place / "empty").mkdir()
    documents = lay(place / "documents", {f"{label}/{n}.docx": b"x" for label in "ab" for n in range(3)})
    named = lay(place / "named", {f"{n}.wav": b"x" for n in range(4)})
    write_table(named / "labels.csv", [{"sound": f"{n}.wav", "kind": "ab"[n % 2]} for n in range(4)])
    expected = {
        place / "empty": "empty is of no kind that is known (files: none)",
        documents: "documents is of no kind that is known (files: 6 .docx)",
        named: "labels.csv is of no kind that is known (its column 'sound' names files, which are of none)",
    }
    for path, said in expected.items():
        code, _, error = init(path)
        assert code == 1 and said in error, error
    code, _, error = init(documents, "--kind", "sound")
    assert code == 1 and "--kind is 'sound', expected is one of image, text" in error


def test_a_table_counts_where_it_names_images(place: Path) -> None:
    root = folder_of_images(place / "set", {"img": 4})
    told = [{"photo": f"img/{n}.png", "kind": "ab"[n % 2], "remark": "a remark that is longer"} for n in range(4)]
    write_table(root / "labels.csv", told)
    detected = detect(root)
    assert (detected.source, detected.params.path, found_columns(detected)) == ("table", root, ("photo", "kind"))
    assert detect(root / "labels.csv") == detected
    assert take_survey(detected).counts == {"a": 2, "b": 2}
    other = folder_of_images(place / "other", {"cat": 2, "dog": 2})
    write_table(other / "authors.csv", [{"author": name, "year": "2020"} for name in ("x", "y")])
    assert detect(other).source == "folder"
    write_table(root / "more.csv", told)
    assert detect(root / "labels.csv").params.table.file == "labels.csv"


def test_a_table_that_names_no_file_is_told(place: Path) -> None:
    for cell in ("0000", "img\\0.png"):
        root = folder_of_images(place / cell[:3], {"img": 4})
        write_table(root / "labels.csv", [{"id": cell, "breed": "cat"}])
        code, out, error = init(root)
        assert code == 1 and "only the label 'img' was found" in error
        assert f"labels.csv is not used: no cell is the path of a file, relative to it (first row: {cell!r}, 'c" in out


def test_labels_that_look_like_splits_are_told(place: Path) -> None:
    for names in (("training_set", "test_set"), ("train", "test1"), ("seg_train", "seg_test")):
        root = folder_of_images(place / names[0], dict.fromkeys(names, 12))
        assert f"{', '.join(sorted(names))} look like splits, not like labels" in init(root)[1]
    assert "look like" not in init(folder_of_images(place / "u", {"contest": 12, "latest": 12, "test": 12}))[1]


def test_a_missing_header_is_told(place: Path) -> None:
    (place / "t.csv").write_text("".join(f"a text of a good many words {n},{'ab'[n % 2]}\n" for n in range(40)))
    said = "the first line is to name the columns, and 'a text of a good many words 0' looks like an item of its own"
    assert said in init(place / "t.csv")[1]


def test_another_encoding_of_some_lines_is_told(place: Path) -> None:
    lines = [f"a text of {'£' if n % 9 == 0 else ''}{n},{'ab'[n % 2]}" for n in range(60)]
    (place / "t.csv").write_text("\n".join(["text,label", *lines]), encoding="latin-1")
    assert "some are not utf-8: --encoding states another, as latin-1" in init(place / "t.csv")[1]
    assert "--encoding states another" not in init(place / "t.csv", "--encoding", "latin-1")[1]


def test_a_label_never_held_out_is_told(place: Path) -> None:
    root = folder_of_texts(place / "aclImdb", above="train/")
    folder_of_texts(root, above="test/")
    lay(root, {"train/unsup/0.txt": b"?", "train/urls_unsup.txt": b"http", "imdb.vocab": b"the"})
    code, said, _ = init(root)
    assert code == 0 and "never held out: unsup; is it a label? Else leave it out: --labels" in said
    assert "divided already: " in said and "test 20" in said
    code, said, _ = init(root, "--labels", "bad,good", "--write")
    assert code == 0 and "unsup" not in said and fetch()["labels"] == ["bad", "good"]
    assert init(folder_of_texts(place / "others"), "--write")[0] == 0
    assert fetch()["labels"] is None  # those of the source before are not asked for


@pytest.mark.parametrize("name", ["fold", "set", "subset", "partition", "Split", "split"])
def test_a_split_column_must_name_splits(place: Path, name: str) -> None:
    plain = [{**row, name: ("lego", "duplo", "3")[n % 3]} for n, row in enumerate(rows("text", "label", 50))]
    path = write_table(place / "t.csv", plain)
    code, out, err = init(path, "--write")
    assert code == 0, err
    assert "100 usable items" in out and "divided already" not in out
    section = read_section(SourceParams, "data", "mine", "fetch")
    assert all(isinstance(one, Item) and not one.split for one in tables.read(section, "text"))
    assert section.given_splits is (name != "split"), "only where the reader would take the column by its name"
    divided = [{**row, name: (" Train", "dev", "TEST")[n % 3]} for n, row in enumerate(rows("text", "label", 50))]
    assert detect(write_table(place / "d.csv", divided)).params.table.split == name


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_split_column_is_never_the_label(place: Path, suffix: str) -> None:
    path = news(place / f"t{suffix}", data_fold=("0", "1"), part=("Train", "dev"))
    code, out, err = init(path, "--write")
    assert (code, err) == (0, "")
    table = fetch()["table"]
    assert table | {"content": "document", "label": "topic", "split": "split"} == table
    assert "column 'document' is the text (as found in the table), column 'topic' the label" in out
    assert "divided already: " in out and "test 30" in out
    for name in ("data_fold", "part"):
        assert f"column '{name}' looks like a split and is not used; --split names one" in out


def test_no_label_beside_a_split_is_told(place: Path) -> None:
    content = [{"split": ("train", "test")[n % 2], "document": f"text {n}", "label": "dev"} for n in range(1_002)]
    code, _, err = init(write_table(place / "t.csv", content), "--write")
    assert code == 1 and "among split, document, label (label, split looks like a split); name the one that" in err
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


def test_options_name_the_columns_of_a_table(place: Path) -> None:
    path = news(place / "t.csv", part=("train", "dev", "test"), label=("x", "y"), title=("long title", "short title"))
    code, out, _ = init(path, "--label", "topic", "--content", "document", "--split", "part", "--write")
    table = fetch()["table"]
    assert code == 0 and [table[key] for key in ("label", "content", "split")] == ["topic", "document", "part"]
    assert "(as --content says), column 'topic' the label (as --label says)" in out
    assert "divided already: " in out and "validation 50" in out
    assert "label: topic" in out and "# as --label says" in paths.PARAMS.read_text()
    assert init(path, "--label", "split", "--write")[0] == 0, "an option may name what is never taken unasked"
    assert fetch()["table"]["label"] == "split"


def test_columns_that_params_name_are_kept(place: Path) -> None:
    path = news(place / "t.csv", country=("fr", "uk"), abstract=("x" * 300,))
    assert init(path, "--write")[0] == 0
    assert values_after(path, label="country", content="document") == ["country", "document"]
    assert "column 'country' the label (as params.yaml says)" in init(path)[1]
    assert init(path, "--label", "topic", "--write")[0] == 0
    table = fetch()["table"]
    assert (table["label"], table["content"]) == ("topic", "document")
    assert values_after(path, label="split", content="gone") == ["country", "document"], "neither can be meant"
    assert values_after(path, label="topic", content="document") == ["topic", "document"]
    other = news(place / "other.csv", country=("fr", "uk"), abstract=("x" * 300,))
    assert init(other, "--write")[0] == 0
    assert fetch()["table"]["label"] == "country", "params.yaml had named a column of another table"


def values_after(path: Path, label: str, content: str) -> list[str]:
    """The columns of label and content in params.yaml, where a user writes these and lets `init` write the rest."""
    tree = values()
    tree["data"]["mine"]["fetch"]["table"] |= {"label": label, "content": content}
    paths.PARAMS.write_text(yaml.safe_dump(tree, sort_keys=False))
    assert init(path, "--write")[0] == 0
    return [fetch()["table"][key] for key in ("label", "content")]


def test_a_kept_column_keeps_its_comment(place: Path) -> None:
    path = news(place / "t.csv", country=("fr", "uk"))
    assert init(path, "--label", "country", "--write")[0] == 0
    written = paths.PARAMS.read_text()
    assert "label: country      # as --label says" in written
    assert "says all this already" in init(path)[1]
    paths.PARAMS.write_text(written.replace("# as --label says", "# where it is from"))
    assert init(path, "--encoding", "ascii", "--write")[0] == 0
    assert "label: country      # where it is from" in paths.PARAMS.read_text()


def test_columns_of_other_data_do_not_count(place: Path) -> None:
    root = folder_of_images(place / "set", {"img": 4})
    write_table(root / "labels.csv", [{"path": f"img/{n}.png", "label": "ab"[n % 2]} for n in range(4)])
    for name in ("mine", "fashion"):
        code, out, _ = init(root, name=name)
        assert code == 0 and "column 'path' is the image (as found in the table), column 'label' the label" in out


@pytest.mark.parametrize(
    ("suffix", "header", "found"),
    [(".csv", "text;label", ";"), (".csv", "id\ttext\tlabel", "\t"), (".tsv", "text,label", ","), (".csv", "a|b", "|")],
)
def test_another_delimiter_is_named_with_the_remedy(place: Path, suffix: str, header: str, found: str) -> None:
    for cell in ("a text", "words, and ; more | and"):
        path = place / f"t{suffix}"
        lines = [found.join([*header.split(found)[:-2], f"{cell} {n}", "ab"[n % 2]]) for n in range(40)]
        path.write_text("\n".join([header, *lines]))
        code, _, error = init(path)
        assert code == 1 and f"its columns are separated by {found!r}, those of {suffix} by " in error
        assert f"pandas.read_csv('{path}', sep={found!r}).to_json('{path.with_suffix('.jsonl')}', " in error


def test_the_remedy_for_a_delimiter_works(place: Path) -> None:
    lines = [f'"{text}; number {n}";{label}' for n in range(20) for label, text in TEXTS.items()]
    (place / "t.csv").write_text("\n".join(["text;label", *lines]))
    remedy = init("t.csv")[2].split("for example: ")[1].strip()
    subprocess.run(remedy.replace("python ", f"{sys.executable} ", 1), shell=True, check=True, cwd=place)
    assert f"{len(lines)} usable items of {len(TEXTS)} labels" in init("t.jsonl")[1]


def test_what_else_the_columns_could_be_is_told(place: Path) -> None:
    _, out, _ = init(news(place / "t.csv", country=("fr", "uk", "de", "it")))
    assert "the label could also be 'country': --label names it" in out and "content could" not in out
    titled = [
        {"title": f"title {n}", "article": f"an article of more words {n}", "class": "ab"[n % 2]} for n in range(60)
    ]
    _, out, _ = init(write_table(place / "titled.csv", [{**row, "category": "x"} for row in titled]))
    assert "the content could also be 'article': --content names it" in out
    assert "the label could also be 'category': --label names it" in out


@pytest.mark.parametrize(("suffix", "kept"), [(".tsv", "120 usable"), (".csv", "99 usable")])
def test_init_counts_every_line_beside_stray_quotes(place: Path, suffix: str, kept: str) -> None:
    told = [[f"{text} {n}", label] for n, (label, text) in enumerate([*TEXTS.items()] * 60)]
    told = [[text.replace(" ,", ""), label] for text, label in told]
    told[10][0], told[30][0] = '"' + told[10][0], told[30][0] + '"'
    path = place / f"t{suffix}"
    path.write_text("".join({".csv": ",", ".tsv": "\t"}[suffix].join(row) + "\n" for row in [["text", "label"], *told]))
    code, out, _ = init(path)
    rejected = "0 rejected, 0 ignored" if suffix == ".tsv" else "21 rejected {'no_row': 21}, 0 ignored"
    assert code == 0 and f"{kept} items of 2 labels" in out and rejected in out
    assert suffix == ".tsv" or "t.csv:12: stray quotes join lines 12 to 32" in out


def test_labels_that_stop_the_pipeline_are_told(place: Path) -> None:
    folder = folder_of_images(place / "u", {"a": 40, "b": 10, "c": 9, "d": 4})
    _, out, _ = init(folder)
    assert "too few, which stops the pipeline: d 4, c 9; at least 5 each are needed for train, test," in out
    assert "gate, and 10 in all (data.mine.prepare.limits.min_per_label)" in out
    (told,) = take_survey(detect(folder)).warn_of_rare("min_per_label", None)
    assert "stops the pipeline: d 4; at least 5 each" in told and "min_per_label)" not in told


def test_a_label_hardly_left_to_train_is_told(place: Path) -> None:
    counts = {"a": (40, 20), "b": (3, 20)}
    files = {
        f"{split}/{label}/{number}.txt": f"{label} {split} {number}".encode()
        for label, both in counts.items()
        for split, count in zip(("train", "test"), both, strict=True)
        for number in range(count)
    }
    _, out, _ = init(lay(place / "divided", files))
    told = "too few, which stops the pipeline: b 3 and 20 held out; at least 4 each are needed for train, validation, "
    assert f"{told}calibration, gate, and 10 in all" in out


def test_late_labels_are_sampled_as_the_first(place: Path) -> None:
    texts = {f"a/{n}.txt": b"short one" for n in range(3_000)} | {f"b/{n}.txt": b"long " * 40 for n in range(600)}
    survey = take_survey(detect(lay(place / "texts", texts)))
    assert 0.2 < np.mean(np.array(survey.sample.lengths) > 2) < 0.5


def test_a_lone_surrogate_is_told_and_not_counted(place: Path) -> None:
    good = [json.dumps({"text": f"a text number {number}", "label": "ab"[number % 2]}) for number in range(60)]
    odd = [r'{"text": "a text", "label": "\ud800"}', r'{"text": "a \udfff", "label": "a"}']
    Path("set.jsonl").write_text("\n".join([*good, *odd]))
    code, out, err = init("set.jsonl")
    assert (code, err) == (0, "")
    for words in ("60 usable items of 2 labels", "the label holds a lone surrogate", "the text holds a lone surrogate"):
        assert words in out


def mistakes(place: Path) -> Mapping[str, tuple[object, tuple[str, ...], str]]:
    """By a name: path, options, and what is said."""
    one = folder_of_texts(place / "one")
    shutil.rmtree(one / "bad")
    latin = lay(place / "latin", {f"{label}/1.txt": "schön".encode("latin-1") for label in "ab"})
    wide = place / "wide.csv"
    wide.write_bytes("text,label\nschön,a\n".encode("utf-16"))
    two = lay(place / "two", {name: b"text,label\na,b\n" for name in ("a.csv", "b.csv")})
    lone = write_table(place / "lone.csv", [{"label": name} for name in "abab"])
    same = write_table(place / "same.csv", [{"one": "x", "two": "y"}] * 9)
    (place / "report.docx").write_bytes(b"x")
    case = folder_of_texts(place / "case")
    lay(case, {"Good/1.txt": b"x"})
    return {
        "nothing there": (place / "gone", (), "gone does not exist; name a folder"),
        "one label": (one, (), "only the label 'good' was found, at least two labels are expected: a folder per"),
        "encoding of files": (latin, (), "no usable item was found"),
        "encoding of a table": (wide, (), "begins with the mark of utf-16, stated is utf-8; state utf-16"),
        "no encoding": (case, ("--encoding", "klingon"), "--encoding is 'klingon', which Python does not know"),
        "two tables": (two, (), "holds several tables: a.csv, b.csv; name one of them with --from"),
        "a column alone": (lone, (), "has the column 'label' alone; one of the text itself is expected beside it"),
        "no labels": (same, (), "no column looks like labels among one, two; name"),
        "no such column": (lone, ("--content", "text"), "lone.csv has no column 'text' (--content), it has label"),
        "a column of no table": (case, ("--label", "x"), "--label names a column of a table; "),
        "one column for both": (same, ("--label", "one", "--content", "one"), "name the same column 'one'"),
        "no division": (same, ("--split", "one"), "--split one has x; known are train, training, validation"),
        "no table": (place / "report.docx", (), "report.docx is neither a table"),
        "a label in two cases": (case, (), "differ in case or spelling alone"),
        "a label that is not there": (case, ("--labels", "good,bad,ugly"), "no item has the label 'ugly'"),
        "a label alone": (case, ("--labels", "good"), "--labels is 'good', expected are two at least, with commas"),
    }


def test_every_mistake_is_told_with_the_remedy(place: Path) -> None:
    for name, (path, options, expected) in mistakes(place).items():
        code, _, said = init(path, *options, "--write")
        assert (code, said.count("\n")) == (1, 1) and expected in said, (name, said)
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


def test_a_detected_source_gives_what_fetch_reads(place: Path) -> None:
    root = folder_of_texts(place / "texts")
    assert detect(root).params == params(root)
    with pytest.raises(SourceRefused, match="damaged"):
        take_survey(detect(lay(place, {"bad.zip": b"PK"}) / "bad.zip"))


def test_no_file_of_init_names_a_kind() -> None:
    for path in Path(source.__file__).parent.glob("*.py"):
        code = path.read_text()
        assert not [kind for kind in ("image", "text") if f'"{kind}"' in code.replace('content="text"', "")], path
