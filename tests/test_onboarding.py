"""`init` sees what data is, proposes params that suit it, and changes params.yaml there and nowhere else."""

import gzip
import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from sources_of_users import lay, params, png, zipped
from typer.testing import CliRunner

import pipelines.baselines
import pipelines.evaluate
import pipelines.evaluate_stream
import pipelines.export
import pipelines.export_stream
import pipelines.prepare
import pipelines.train
import pipelines.train_stream
from convoy.__main__ import app
from convoy.core import paths
from convoy.core.params import ParamsInvalid, Section, read_section
from convoy.kinds import candidates
from convoy.operations.init import init as onboarding
from convoy.operations.init.proposal import Change, propose
from convoy.operations.init.survey import Detected, detect, take_survey
from convoy.release.gates.registry import PublishParams
from convoy.sources import tables
from convoy.sources.items import Item, SourceParams, SourceRefused
from convoy.training.trainer import TrainerParams
from convoy.training.tuning_space import TuneParams
from pipelines.choose import SelectionParams

pytestmark = pytest.mark.torch
RELEASE = paths.RELEASE_PARAMS.absolute()
PACKAGED = Path(__file__).parents[1] / "params.yaml"
TEXTS = {"good": "a fine film , well told", "bad": "two hours I want back !"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the packaged params.yaml."""
    shutil.copy(PACKAGED, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(task: str, source: object, *options: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the verb."""
    done = CliRunner().invoke(app, ["init", "--task", task, "--from", str(source), *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stdout, done.stderr


def values(path: Path = paths.PARAMS) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def require_every_section() -> None:
    """Raises ParamsInvalid where a stage or a verb would."""
    sections: Mapping[tuple[str, ...], type[Section]] = {
        ("fetch_images",): SourceParams,
        ("fetch_text",): SourceParams,
        ("prepare_images",): pipelines.prepare.params_model("image"),
        ("prepare_text",): pipelines.prepare.params_model("text"),
        ("train", "trainer"): TrainerParams,
        ("baselines",): pipelines.baselines.Params,
        ("choose",): SelectionParams,
        ("export",): pipelines.export.Params,
        ("evaluate",): pipelines.evaluate.Params,
        ("train_stream",): pipelines.train_stream.Params,
        ("export_stream",): pipelines.export_stream.Params,
        ("evaluate_stream",): pipelines.evaluate_stream.Params,
    }
    for keys, model in sections.items():
        read_section(model, *keys)
    for name, model in {"publish": PublishParams, "tune": TuneParams}.items():
        read_section(model, name, path=RELEASE)
    for task in paths.DATA_KINDS:
        for architecture in paths.ARCHITECTURES:
            of_one = read_section(pipelines.train.Params, "train", task, architecture)
            candidates.batch_params(task, of_one.batches)


def leaves(tree: Any, keys: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(tree, dict):
        return {keys: tree}
    return {name: value for key, below in tree.items() for name, value in leaves(below, (*keys, key)).items()}


def idx(content: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">HBB{content.ndim}I", 0, 8, content.ndim, *content.shape) + content.tobytes())


def folder_of_texts(root: Path, count: int = 10, above: str = "") -> Path:
    files = {
        f"{above}{label}/{number}.txt": f"{text} {number}".encode()
        for label, text in TEXTS.items()
        for number in range(count)
    }
    return lay(root, files)


def folder_of_images(root: Path, counts: Mapping[str, int], **how: Any) -> Path:
    return lay(root, {f"{name}/{n}.png": png(n, **how) for name, count in counts.items() for n in range(count)})


def rows(text: str, label: str, count: int = 300) -> list[dict[str, str]]:
    """A table that is sorted by its labels, as many are."""
    found = [(name, f"{told} {n}") for name, told in TEXTS.items() for n in range(count)]
    return [{"id": str(n), label: name, text: told} for n, (name, told) in enumerate(found)]


def write_table(path: Path, content: list[dict[str, str]]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(content), path)
        case suffix:
            mark = {".csv": ",", ".tsv": "\t"}[suffix]
            cells = [list(content[0]), *(row.values() for row in content)]
            path.write_text("".join(mark.join(f'"{cell}"' for cell in row) + "\n" for row in cells))
    return path


def found_columns(detected: Detected) -> tuple[str, str]:
    return detected.params.table.content, detected.params.table.label


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("text", "label"), [("text", "label"), ("Review", "Sentiment"), ("quote", "verdict")])
def test_the_columns_of_a_table_are_found_by_name_or_by_what_is_in_them(
    place: Path, suffix: str, text: str, label: str
) -> None:
    path = write_table(place / f"t{suffix}", rows(text, label))
    detected = detect("text", path, "utf-8")
    assert (detected.source, detected.params.path, found_columns(detected)) == ("table", path, (text, label))
    assert take_survey(detected, "text").counts == {"good": 300, "bad": 300}


def test_folders_archives_and_arrays_are_told_apart(place: Path) -> None:
    texts = folder_of_texts(place / "texts")
    archive = zipped(
        place / "t.zip", {f"t/{name}": (texts / name).read_bytes() for name in ("good/1.txt", "bad/1.txt")}
    )
    pixels, labels = np.zeros((6, 8, 8), np.uint8), np.arange(6, dtype=np.uint8) % 2
    np.savez(place / "set.npz", x_train=pixels, y_train=labels)
    parts = {f"{part}-{what}": idx(content) for part in ("train", "t10k") for what, content in
             (("images-idx3-ubyte.gz", pixels), ("labels-idx1-ubyte.gz", labels))}  # fmt: skip
    sources = {
        "folder": ("text", [texts, archive]),
        "arrays": ("image", [place / "set.npz", lay(place / "idx", parts)]),
    }
    for kind, (task, places) in sources.items():
        for path in places:
            detected = detect(task, path, "utf-8")  # type: ignore[arg-type]
            assert detected.source == kind and len(take_survey(detected, task).counts) == 2  # type: ignore[arg-type]


def test_a_table_beside_folders_of_images_counts_where_it_names_them(place: Path) -> None:
    root = folder_of_images(place / "set", {"img": 4})
    told = [{"photo": f"img/{n}.png", "kind": "ab"[n % 2], "remark": "a remark that is longer"} for n in range(4)]
    write_table(root / "labels.csv", told)
    detected = detect("image", root, "utf-8")
    assert (detected.source, detected.params.path, found_columns(detected)) == ("table", root, ("photo", "kind"))
    assert detect("image", root / "labels.csv", "utf-8") == detected
    assert take_survey(detected, "image").counts == {"a": 2, "b": 2}
    other = folder_of_images(place / "other", {"cat": 2, "dog": 2})
    write_table(other / "authors.csv", [{"author": name, "year": "2020"} for name in ("x", "y")])
    assert detect("image", other, "utf-8").source == "folder"
    write_table(root / "more.csv", told)
    assert detect("image", root / "labels.csv", "utf-8").params.table.file == "labels.csv"


def test_the_official_reviews_are_told_to_have_a_label_that_is_never_held_out(place: Path) -> None:
    root = folder_of_texts(place / "aclImdb", above="train/")
    folder_of_texts(root, above="test/")
    lay(root, {"train/unsup/0.txt": b"?", "train/urls_unsup.txt": b"http", "imdb.vocab": b"the"})
    code, said, _ = init("text", root)
    assert code == 0 and "never held out: unsup; is it a label? Else leave it out: --labels" in said
    assert "divided already: " in said and "test 20" in said
    code, said, _ = init("text", root, "--labels", "bad,good", "--write")
    assert code == 0 and "unsup" not in said and values()["fetch_text"]["labels"] == ["bad", "good"]
    assert init("text", folder_of_texts(place / "others"), "--write")[0] == 0
    assert values()["fetch_text"]["labels"] is None  # those of the source before are not asked for


def proposed(task: str, path: Path) -> dict[str, Any]:
    detected = detect(task, path, "utf-8")  # type: ignore[arg-type]
    changes = propose(task, detected, take_survey(detected, task))  # type: ignore[arg-type]
    return {".".join(change.keys): change.value for change in changes}


def test_the_proposal_for_images_follows_their_size_their_colours_and_their_borders(place: Path) -> None:
    coloured = proposed("image", folder_of_images(place / "c", {"a": 9, "b": 9}, size=(40, 30)))
    section = "prepare_images.preprocessing"
    assert (coloured[f"{section}.size_px"], coloured[f"{section}.channels"]) == (48, 3)
    assert coloured[f"{section}.polarity"] == "any"
    grey = proposed("image", folder_of_images(place / "g", {"a": 9, "b": 9}, size=(28, 20), mode="L"))
    assert (grey[f"{section}.size_px"], grey[f"{section}.channels"], grey[f"{section}.polarity"]) == (28, 1, "any")
    dark = np.zeros((20, 12, 12), np.uint8)
    dark[:, 4:8, 4:8] = 255
    np.savez(place / "dark.npz", images=dark, labels=np.arange(20) % 2)
    found = proposed("image", place / "dark.npz")
    assert (found[f"{section}.size_px"], found[f"{section}.polarity"]) == (16, "light_on_dark")
    assert found["train.image.cnn.batches.flip"] is found["train.image.lstm.batches.flip"] is False


def test_few_items_get_more_epochs_of_smaller_batches_and_larger_shares(place: Path) -> None:
    found = proposed("text", write_table(place / "t.csv", rows("text", "label")))
    assert found["prepare_text.validation_share"] == found["prepare_text.test_share"] == 0.15
    trained, size, epochs = 300, found["train.text.cnn.batches.size"], found["train.text.cnn.learning.epochs"]
    assert size < 64 and epochs > 6
    assert epochs == 60 or 1_200 <= epochs * trained / size < 1_200 + trained / size + 1
    divided = [{**row, "split": ("train", "test")[n % 2]} for n, row in enumerate(rows("text", "label", 1_000))]
    found = proposed("text", write_table(place / "d.csv", divided))
    assert found["train.text.cnn.batches.size"] == 2 ** int(np.log2(1_000 * 0.65 / 20))


@pytest.mark.parametrize("name", ["fold", "set", "subset", "partition", "Split", "split"])
def test_a_column_is_the_division_only_where_it_names_the_parts_of_one(place: Path, name: str) -> None:
    plain = [{**row, name: ("lego", "duplo", "3")[n % 3]} for n, row in enumerate(rows("text", "label", 50))]
    path = write_table(place / "t.csv", plain)
    code, out, err = init("text", path, "--write")
    assert code == 0, err
    assert "100 usable items" in out and "divided already" not in out
    written = values()["fetch_text"]
    params = read_section(SourceParams, "fetch_text")
    assert all(isinstance(one, Item) and not one.split for one in tables.read(params, "text"))
    assert written["given_splits"] is (name != "split"), "only where the reader would take the column by its name"
    divided = [{**row, name: (" Train", "dev", "TEST")[n % 3]} for n, row in enumerate(rows("text", "label", 50))]
    assert detect("text", write_table(place / "d.csv", divided), "utf-8").params.table.split == name


def news(path: Path, **more: tuple[str, ...]) -> Path:
    """A table as that of Reuters R8, without a column called label, and columns more, whose cells repeat themselves."""
    topics = ("acquisition", "earnings", "crude")
    content = [
        {"topic": topics[n % 3], "document": f"{topics[n % 3]} of {n} shares", "split": ("train", "test")[n % 5 == 0]}
        | {name: cells[n // 2 % len(cells)] for name, cells in more.items()}
        for n in range(150)
    ]
    return write_table(path, content)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_split_column_is_never_the_label(place: Path, suffix: str) -> None:
    path = news(place / f"t{suffix}", data_fold=("0", "1"), part=("Train", "dev"))
    code, out, err = init("text", path, "--write")
    assert (code, err) == (0, "")
    written = values()["fetch_text"]
    assert written["table"] | {"content": "document", "label": "topic", "split": "split"} == written["table"]
    assert "column 'document' is the text (as found in the table), column 'topic' the label" in out
    assert "divided already: " in out and "test 30" in out
    for name in ("data_fold", "part"):
        assert f"column '{name}' looks like a split and is not used; --split names one" in out


def test_no_label_beside_a_split_is_told(place: Path) -> None:
    content = [{"split": ("train", "test")[n % 2], "document": f"text {n}", "label": "dev"} for n in range(1_002)]
    code, _, err = init("text", write_table(place / "t.csv", content), "--write")
    assert code == 1 and "among split, document, label (label, split looks like a split); name the one that" in err
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


def test_options_name_the_columns_of_a_table(place: Path) -> None:
    path = news(place / "t.csv", part=("train", "dev", "test"), label=("x", "y"), title=("long title", "short title"))
    code, out, _ = init("text", path, "--label", "topic", "--content", "document", "--split", "part", "--write")
    table = values()["fetch_text"]["table"]
    assert code == 0 and [table[key] for key in ("label", "content", "split")] == ["topic", "document", "part"]
    assert "(as --content says), column 'topic' the label (as --label says)" in out
    assert "divided already: " in out and "validation 50" in out
    assert "label: topic" in out and "# as --label says" in paths.PARAMS.read_text()
    assert init("text", path, "--label", "split", "--write")[0] == 0, "an option may name what is never taken unasked"
    assert values()["fetch_text"]["table"]["label"] == "split"


def test_columns_that_params_name_are_kept(place: Path) -> None:
    path = news(place / "t.csv", country=("fr", "uk"), abstract=("x" * 300,))
    assert values_after(path, label="country", content="document") == ["country", "document"]
    assert "column 'country' the label (as params.yaml says)" in init("text", path)[1]
    assert init("text", path, "--label", "topic", "--write")[0] == 0
    table = values()["fetch_text"]["table"]
    assert (table["label"], table["content"]) == ("topic", "document")
    assert values_after(path, label="split", content="gone") == ["country", "document"], "neither can be meant"
    assert values_after(path, label="topic", content="document") == ["topic", "document"]
    other = news(place / "other.csv", country=("fr", "uk"), abstract=("x" * 300,))
    assert init("text", other, "--write")[0] == 0
    assert values()["fetch_text"]["table"]["label"] == "country", "params.yaml had named a column of another table"


def values_after(path: Path, label: str, content: str) -> list[str]:
    """The columns of label and content in params.yaml, where a user writes these and lets `init` write the rest."""
    tree = values()
    tree["fetch_text"]["table"] |= {"label": label, "content": content}
    paths.PARAMS.write_text(yaml.safe_dump(tree, sort_keys=False))
    assert init("text", path, "--write")[0] == 0
    return [values()["fetch_text"]["table"][key] for key in ("label", "content")]


def test_what_else_the_columns_could_be_is_told(place: Path) -> None:
    _, out, _ = init("text", news(place / "t.csv", country=("fr", "uk", "de", "it")))
    assert "the label could also be 'country': --label names it" in out and "content could" not in out
    titled = [
        {"title": f"title {n}", "article": f"an article of more words {n}", "class": "ab"[n % 2]} for n in range(60)
    ]
    _, out, _ = init("text", write_table(place / "titled.csv", [{**row, "category": "x"} for row in titled]))
    assert "the content could also be 'article': --content names it" in out
    assert "the label could also be 'category': --label names it" in out


@pytest.mark.parametrize(("suffix", "kept"), [(".tsv", "120 usable"), (".csv", "99 usable")])
def test_init_counts_every_line_beside_stray_quotes(place: Path, suffix: str, kept: str) -> None:
    told = [[f"{text} {n}", label] for n, (label, text) in enumerate([*TEXTS.items()] * 60)]
    told = [[text.replace(" ,", ""), label] for text, label in told]
    told[10][0], told[30][0] = '"' + told[10][0], told[30][0] + '"'
    path = place / f"t{suffix}"
    path.write_text("".join({".csv": ",", ".tsv": "\t"}[suffix].join(row) + "\n" for row in [["text", "label"], *told]))
    code, out, _ = init("text", path)
    rejected = "0 rejected, 0 ignored" if suffix == ".tsv" else "21 rejected {'no_row': 21}, 0 ignored"
    assert code == 0 and f"{kept} items of 2 labels" in out and rejected in out
    assert suffix == ".tsv" or "t.csv:12: stray quotes join lines 12 to 32" in out


def test_labels_that_will_stop_the_pipeline_are_told(place: Path) -> None:
    counts = {"a": 40, "b": 10, "c": 9, "d": 4}
    _, out, _ = init("image", folder_of_images(place / "u", counts))
    assert "too few, which stops the pipeline: d 4, c 9; at least 5 each are needed for train, test," in out
    assert "gate, and 10 in all (prepare_images.limits.min_per_label)" in out
    params = place / "params.yaml"
    params.write_text(params.read_text().replace("min_per_label: 10 ", "min_per_label: null"))
    _, out, _ = init("image", place / "u")
    assert "stops the pipeline: d 4; at least 5 each" in out and "min_per_label)" not in out


def test_a_label_that_the_source_hardly_leaves_to_train_is_told(place: Path) -> None:
    counts = {"a": (40, 20), "b": (3, 20)}
    files = {
        f"{split}/{label}/{number}.txt": f"{label} {split} {number}".encode()
        for label, both in counts.items()
        for split, count in zip(("train", "test"), both, strict=True)
        for number in range(count)
    }
    _, out, _ = init("text", lay(place / "divided", files))
    told = "too few, which stops the pipeline: b 3 and 20 held out; at least 4 each are needed for train, validation, "
    assert f"{told}calibration, gate, and 10 in all" in out


def test_uneven_labels_are_weighted_and_even_ones_are_not(place: Path) -> None:
    uneven = proposed("image", folder_of_images(place / "u", {"a": 40, "b": 5}))
    even = proposed("image", folder_of_images(place / "e", {"a": 20, "b": 20}))
    for architecture in paths.ARCHITECTURES:
        key = f"train.image.{architecture}.learning.class_weights"
        assert (uneven[key], even[key]) == ("balanced", "none")


@pytest.mark.parametrize(("words", "tokens"), [(10, 16), (100, 104), (2_000, 400)])
def test_lengths_and_vocabulary_follow_the_texts(place: Path, words: int, tokens: int) -> None:
    draw = np.random.default_rng(0)
    texts = {
        f"{'ab'[n % 2]}/{n}.txt": " ".join(f"w{w}" for w in draw.integers(0, 300, words)).encode() for n in range(60)
    }
    found = proposed("text", lay(place / "texts", texts))
    assert found["prepare_text.preprocessing.max_tokens"] == tokens
    assert found["prepare_text.preprocessing.head_tokens"] == tokens // 3
    assert 200 <= found["prepare_text.vocabulary_size"] <= 300


def test_labels_that_come_late_are_looked_into_as_well_as_the_first(place: Path) -> None:
    texts = {f"a/{n}.txt": b"short one" for n in range(3_000)} | {f"b/{n}.txt": b"long " * 40 for n in range(600)}
    survey = take_survey(detect("text", lay(place / "texts", texts), "utf-8"), "text")
    assert 0.2 < np.mean(np.array(survey.sample.lengths) > 2) < 0.5


def test_a_lone_surrogate_is_told_and_not_counted(place: Path) -> None:
    good = [json.dumps({"text": f"a text number {number}", "label": "ab"[number % 2]}) for number in range(60)]
    odd = [r'{"text": "a text", "label": "\ud800"}', r'{"text": "a \udfff", "label": "a"}']
    Path("set.jsonl").write_text("\n".join([*good, *odd]))
    code, out, err = init("text", "set.jsonl")
    assert (code, err) == (0, "")
    for words in ("60 usable items of 2 labels", "the label holds a lone surrogate", "the text holds a lone surrogate"):
        assert words in out


def test_what_is_written_is_accepted_by_every_stage_and_all_else_stays_as_it_was(place: Path) -> None:
    texts = write_table(place / "notes.jsonl", rows("body", "mood"))
    images = folder_of_images(place / "images", {"yes": 40, "no": 5, "1e3": 9}, size=(33, 20))
    before = PACKAGED.read_text().splitlines()
    expected, wanted = leaves(values()), {}
    for task, path, options in (("text", texts, ()), ("image", images, ("--labels", "yes,no,1e3"))):
        detected = detect(task, path, "utf-8", ("yes", "no", "1e3") if options else None)  # type: ignore[arg-type]
        changes = propose(task, detected, take_survey(detected, task))  # type: ignore[arg-type]
        wanted |= {change.keys: change.value for change in changes}
        code, said, _ = init(task, path, *options, "--write")
        assert code == 0 and "params.yaml is written; next: dvc repro" in said
        require_every_section()
    assert leaves(values()) == expected | wanted
    after = paths.PARAMS.read_text().splitlines()
    known = {line.split(":")[0].strip() for line in after} - {line.split(":")[0].strip() for line in before}
    assert len(after) == len(before) and not known
    touched = [old for old, new in zip(before, after, strict=True) if old != new]
    assert {line.split(":")[0].strip() for line in touched} == {keys[-1] for keys in wanted}
    assert len(touched) == len(wanted)  # also where a value stays, its reason is another one
    for task, path, options in (("text", texts, ()), ("image", images, ("--labels", "yes,no,1e3"))):
        assert "says all this already" in init(task, path, *options)[1]


def test_without_write_nothing_is_written(place: Path) -> None:
    code, said, _ = init("text", folder_of_texts(place / "texts"))
    assert code == 0 and "+  source: folder" in said and "nothing is written; with --write" in said
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


def mistakes(place: Path) -> dict[str, tuple[str, object, tuple[str, ...], str]]:
    """By a name: task, path, options, and what is said."""
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
        "nothing there": ("text", place / "gone", (), "gone does not exist; name a folder"),
        "one label": (
            "text",
            one,
            (),
            "only the label 'good' was found, at least two labels are expected: a folder per",
        ),
        "encoding of files": ("text", latin, (), "no usable item was found"),
        "encoding of a table": ("text", wide, (), "begins with the mark of utf-16, stated is utf-8; state utf-16"),
        "no encoding": ("text", latin, ("--encoding", "klingon"), "'klingon' is no encoding"),
        "two tables": ("text", two, (), "holds several tables: a.csv, b.csv; name one of them with --from"),
        "a column alone": ("text", lone, (), "has the column 'label' alone"),
        "no labels": ("text", same, (), "no column looks like labels among one, two; name"),
        "no such column": (
            "text",
            lone,
            ("--content", "text"),
            "lone.csv has no column 'text' (--content), it has label",
        ),
        "a column of no table": ("text", case, ("--label", "x"), "--label names a column of a table; "),
        "one column for both": ("text", same, ("--label", "one", "--content", "one"), "name the same column 'one'"),
        "no division": ("text", same, ("--split", "one"), "--split one has x; known are train, training, validation"),
        "no table": ("text", place / "report.docx", (), "report.docx is neither a table"),
        "a label in two cases": ("text", case, (), "differ in case or spelling alone"),
        "a label that is not there": ("text", case, ("--labels", "good,bad,ugly"), "no item has the label 'ugly'"),
    }


def test_every_mistake_is_one_line_with_the_remedy_and_exit_code_1(place: Path) -> None:
    for name, (task, path, options, expected) in mistakes(place).items():
        code, _, said = init(task, path, *options, "--write")
        assert (code, said.count("\n")) == (1, 1) and expected in said, (name, said)
    assert paths.PARAMS.read_bytes() == PACKAGED.read_bytes()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "is missing; run this in"), ("a: [", "is not valid YAML"), ("a: 1", "is missing")]
)
def test_a_params_file_that_is_none_is_told(place: Path, content: str | None, said: str) -> None:
    paths.PARAMS.unlink() if content is None else paths.PARAMS.write_text(content)
    code, _, error = init("text", folder_of_texts(place / "texts"), "--write")
    assert (code, error.count("\n")) == (1, 1) and said in error


CHANGEABLE = [
    keys for keys, value in leaves(yaml.safe_load(PACKAGED.read_text())).items() if not isinstance(value, list)
]
WORDS = st.sampled_from(["no", "on", "1e3", "0x10", "1:30", "", "null", "~", "a b", "# no", "é: x", "- x", "012"])
VALUES = st.one_of(
    WORDS, st.integers(), st.booleans(), st.none(), st.floats(0, 1), st.lists(WORDS | st.integers(), max_size=3)
)


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])  # an example takes 0.2 s
@given(st.dictionaries(st.sampled_from(CHANGEABLE), VALUES, max_size=12))
@example({CHANGEABLE[0]: 1e-07, CHANGEABLE[1]: 1e22})  # CI's find: without a dot, YAML 1.1 reads a word
def test_any_changes_leave_every_other_value_and_remark(wanted: dict[tuple[str, ...], Any]) -> None:
    text = onboarding.changed(PACKAGED, [Change(keys, value, "because") for keys, value in wanted.items()])
    assert leaves(yaml.safe_load(text)) == leaves(yaml.safe_load(PACKAGED.read_text())) | wanted
    goes_on = " " * onboarding.GOES_ON
    before, after = (
        [
            line
            for line in lines.splitlines()
            if (line.lstrip().startswith("#") and not line.startswith(goes_on)) or not line
        ]
        for lines in (PACKAGED.read_text(), text)
    )
    assert before == after


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(ParamsInvalid, match=r"params\.yaml: train\.image\.cnn\.colour is missing"):
        onboarding.changed(PACKAGED, [Change(("train", "image", "cnn", "colour"), 1, "")])


def test_a_detected_source_gives_what_the_stage_will_read(place: Path) -> None:
    root = folder_of_texts(place / "texts")
    assert detect("text", root, "utf-8").params == params(root)
    with pytest.raises(SourceRefused, match="damaged"):
        take_survey(detect("text", lay(place, {"bad.zip": b"PK"}) / "bad.zip", "utf-8"), "text")
