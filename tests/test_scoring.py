"""What is scored in bulk has a row for every input, the answers that REST gives, and the same bytes after any kill."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundles import TEXT_CARD, encoded, png, write_image_bundle, write_text_bundle

from convoy.bundles.bundle import BundleInvalid, Release, digest_of
from convoy.operations.score import score as scoring
from convoy.operations.score.inputs import Inputs, ScoringRefused
from convoy.operations.score.score import Scorer, load
from convoy.sources.items import SourceRefused
from serving.answers import answer_predictions
from serving.deployed import Deployed

ROOT = Path(__file__).parents[1]
TEXTS = ["the good film", "bad\nbad, film", 'a "good" one', "good " * 20, "NA", "ärger 电影"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with both models deployed as `promote` leaves them."""
    for task, write in (("fashion", write_image_bundle), ("reviews", write_text_bundle)):
        write(tmp_path / "deployed" / task / "a")
        (tmp_path / "deployed" / task / "current").symlink_to("a")
    monkeypatch.setenv("CONVOY_DEPLOYED", str(tmp_path / "deployed"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(source: str | Path, output: str = "out.parquet", task: Any = "reviews", **options: Any) -> pa.Table:
    encoding, polarity = options.pop("encoding", "utf-8"), options.pop("polarity", None)
    kind, column = ("text", "text") if task == "reviews" else ("image", "path")
    inputs = Inputs(Path(source), task, kind, options.pop("column", column), encoding)
    chosen = scoring.Settings(options.pop("batch_size", 3), **options)
    scoring.score(Scorer(load(task), encoding, polarity), inputs, Path(output), chosen, print)
    return pq.read_table(output)


def rest_answers(raw: list[Any], task: str, **options: Any) -> list[dict[str, Any]]:
    """The predictions that REST gives of these inputs."""
    predictor = load(task)
    release = Release(name="n", version="1", run_id="r", digest=predictor.digest, promoted_at="now")
    prepared = [predictor.prepare(item, **options) for item in raw]
    rows = predictor.probabilities([item.array for item in prepared])
    answers: list[dict[str, Any]] = json.loads(answer_predictions(Deployed(predictor, release), prepared, rows))[
        "predictions"
    ]
    return answers


def write_csv(path: str, texts: list[str], column: str = "text", delimiter: str = ",", encoding: str = "utf-8") -> None:
    with open(path, "w", newline="", encoding=encoding, errors="surrogateescape") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([["id", column], *([row, text] for row, text in enumerate(texts))])


def matrix(table: pa.Table) -> np.ndarray:
    return np.array([table[name].to_pylist() for name in table.column_names if name.startswith("probability_")]).T


def switch(place: Path, folder: str) -> None:
    """Let another bundle of texts serve."""
    (place / "deployed/reviews/current").unlink()
    (place / "deployed/reviews/current").symlink_to(folder)


def convoy(*words: str, **popen: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "convoy", "score", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)


def test_the_answers_are_those_that_rest_gives() -> None:
    write_csv("in.csv", TEXTS)
    table = score("in.csv")
    predictor = load("reviews")
    rest = rest_answers(TEXTS, "reviews")
    assert table["row"].to_pylist() == list(range(len(TEXTS))) and table["error"].null_count == len(TEXTS)
    assert table["label"].to_pylist() == [answer["label"] for answer in rest]
    found = [list(answer["probabilities"].values()) for answer in rest]
    assert np.abs(matrix(table) - found).max() <= 1e-6
    assert np.abs(np.array(table["probability"]) - [answer["probability"] for answer in rest]).max() <= 1e-6
    assert [row for row, said in enumerate(table["warning"].to_pylist()) if said == "the text was cut"] == [3]
    metadata = table.schema.metadata
    assert metadata[b"convoy.digest"].decode() == predictor.digest and metadata[b"convoy.task"] == b"reviews"
    assert metadata[b"convoy.version"] == b"0.1.0"


def test_images_get_the_answers_that_rest_gives_and_its_warnings() -> None:
    Path("images/below").mkdir(parents=True)
    pictures = {"a.png": png(255), "below/b.webp": encoded("WEBP"), "below/c.jpg": encoded("JPEG"), "z": png(0)}
    for name, content in pictures.items():
        Path("images", name).write_bytes(content)
    names = ["a.png", "z", "below/b.webp", "below/c.jpg"]
    for polarity in (None, "dark_on_light"):
        options = {"polarity": polarity} if polarity else {}
        table = score("images", task="fashion", polarity=polarity, restart=True)
        rest = rest_answers([pictures[name] for name in names], "fashion", **options)
        assert table["name"].to_pylist() == names
        assert table["label"].to_pylist() == [answer["label"] for answer in rest]
        assert np.abs(matrix(table) - [list(answer["probabilities"].values()) for answer in rest]).max() <= 1e-6
        warned = ["; ".join(answer.get("warnings", [])).replace("?", "--") or None for answer in rest]
        assert table["warning"].to_pylist() == warned


def test_every_form_of_the_same_texts_gives_the_same_rows() -> None:
    write_csv("in.csv", TEXTS)
    write_csv("in.tsv", TEXTS, delimiter="\t")
    write_csv("excel.csv", TEXTS, encoding="utf-8-sig")
    write_csv("wide.csv", TEXTS, encoding="utf-16")
    pq.write_table(pa.table({"id": range(len(TEXTS)), "text": TEXTS}), "in.parquet", row_group_size=2)
    Path("in.jsonl").write_text("\n\n".join(json.dumps({"id": 1, "text": text}) for text in TEXTS))
    Path("texts").mkdir()
    for row, text in enumerate(TEXTS):
        Path("texts", f"{row}.txt").write_bytes(text.encode())
    Path("texts", "notes.md").write_text("no text of these")
    expected = score("in.csv").drop_columns("name")
    sources = ["in.tsv", "excel.csv", "in.parquet", "in.jsonl", "texts"]
    for source in sources:
        assert score(source, restart=True).drop_columns("name") == expected, source
    assert score("wide.csv", restart=True, encoding="utf-16").drop_columns("name") == expected


def test_images_of_a_table_are_found_relative_to_it_and_wherever_else_it_says() -> None:
    Path("tables").mkdir()
    Path("pictures").mkdir()
    Path("tables/near.png").write_bytes(png(255))
    Path("pictures/far.png").write_bytes(png(0))
    Path("tables/link.png").symlink_to("../pictures/far.png")
    names = ["near.png", "../pictures/far.png", str(Path("pictures/far.png").resolve()), "link.png"]
    write_csv("tables/in.csv", names, column="file")
    table = score("tables/in.csv", task="fashion", column="file")
    assert table["label"].to_pylist() == ["bright", "dark", "dark", "dark"] and table["name"].to_pylist() == names


def test_every_text_that_cannot_be_used_is_a_row_that_says_why() -> None:
    lines = [
        b"id,text",
        b"1,good",
        b'2,""',
        b"3,  ",
        b"4,g\xffod",
        b"5,one,two",
        b"",
        b"6",
        b"7," + b"a" * 20_001,
        b"8," + b"a" * 1_000_500,
        b"9,bad",
    ]
    Path("in.csv").write_bytes(b"\r\n".join(lines))
    table = score("in.csv")
    codes = [error and error.partition(":")[0] for error in table["error"].to_pylist()]
    rejected = ["blank_text", "blank_text", *["malformed_row"] * 3, "text_too_long", "malformed_row"]
    assert codes == [None, *rejected, None]
    assert table["label"].to_pylist() == ["positive", *[None] * 7, "negative"]
    assert table["probability"].null_count == table["probability_negative"].null_count == 7
    assert table["row"].to_pylist() == list(range(9))  # a blank line is no row, as in pandas


@pytest.mark.process
def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    write_csv("in.csv", ["good"] * 2_000)
    with open("in.csv", "a") as stream:
        stream.write('7,"bad\n' + "8,good\n" * 2_000)
    errors = score("in.csv")["error"].to_pylist()
    assert len(errors) == 4_001 and errors.count(None) == 4_000 and "a quote is not closed" in errors[2_000]


def test_an_unclosed_quote_names_its_line_and_remedy() -> None:
    Path("in.csv").write_text('text\ngood\n"bad\ngood\n')
    error = score("in.csv")["error"].to_pylist()[1]
    assert "line 3 is no row of a table: unexpected end of data" in error and "remove the stray ones" in error


def test_every_line_of_one_column_has_a_row() -> None:
    lines = ["good", "", "bad", '"good', "bad", 'good"', "bad"]
    for name in ("in.csv", "in.tsv"):
        Path(name).write_text("\n".join(["text", *lines]))
        table = score(name, restart=True)
        codes = [error and error.partition(":")[0] for error in table["error"].to_pylist()]
        assert codes == [None, "blank_text", None, *["malformed_row"] * 3, None]
        assert "quotes join lines 5 to 7" in table["error"].to_pylist()[3]


def test_lines_that_stray_quotes_join_are_rows_each() -> None:
    lines = [f"{('good', 'bad')[n % 2]} film {n},{('pos', 'neg')[n % 2]}" for n in range(120)]
    lines[10], lines[30] = '"' + lines[10], lines[30].replace(",", '",')
    Path("in.csv").write_text("\n".join(["text,label", *lines]))
    errors = score("in.csv")["error"].to_pylist()
    assert len(errors) == 120 and [row for row, error in enumerate(errors) if error] == list(range(10, 31))
    assert "malformed_row: stray quotes join lines 12 to 32" in errors[20]
    Path("in.tsv").write_text("\n".join(["text,label", *lines]).replace(",", "\t"))
    assert score("in.tsv", "tsv.parquet")["error"].to_pylist() == [None] * 120


def test_every_line_of_json_that_cannot_be_used_is_a_row_that_says_why() -> None:
    lines = ['{"text": "good"}', "{", "[]", '{"text": 3}', '{"text": null}', '{"other": "x"}', '{"text": "\\ud800"}']
    Path("in.jsonl").write_text("\n".join([*lines, "[" * 100_000]))
    codes = [error and error.partition(":")[0] for error in score("in.jsonl")["error"].to_pylist()]
    bad = "malformed_row"
    assert codes == [None, bad, bad, bad, "missing_value", "missing_value", "invalid_text", bad]


def test_every_image_that_cannot_be_used_is_a_row_that_says_why() -> None:
    Path("in").mkdir()
    Path("in/broken.png").write_bytes(png(255)[:-30])
    Path("in/empty.png").touch()
    Path("in/huge.png").write_bytes(bytes(4_000_001))
    Path("in/link.png").symlink_to("nowhere.png")
    os.mkfifo("in/pipe.png")  # to read it would wait for ever
    Path(os.fsdecode(b"in/\xff.png")).write_bytes(png(255))
    table = score("in", task="fashion")
    codes = dict(
        zip(
            table["name"].to_pylist(),
            [str(error).partition(":")[0] for error in table["error"].to_pylist()],
            strict=True,
        )
    )
    assert codes == {
        "broken.png": "undecodable_image",
        "empty.png": "undecodable_image",
        "huge.png": "file_too_large",
        "link.png": "unreadable_file",
        "pipe.png": "unreadable_file",
        "\\xff.png": "None",
    }
    write_csv(
        "in.csv", ["in/empty.png", "in/no.png", "", "a" * 300, "in/\0", "in", os.fsdecode(b"in/\xff.png")], "path"
    )
    codes_of_table = [
        str(error).partition(":")[0] for error in score("in.csv", "o.parquet", "fashion")["error"].to_pylist()
    ]
    assert codes_of_table == [
        "undecodable_image",
        *["unreadable_file"] * 3,
        "malformed_row",
        "unreadable_file",
        "malformed_row",
    ]


def test_texts_in_files_that_are_not_in_the_encoding_are_rows_with_an_error() -> None:
    Path("in").mkdir()
    Path("in/a.txt").write_bytes("schön".encode("latin-1"))
    assert score("in")["error"].to_pylist() == ["invalid_text: not utf-8: byte 0xf6 at 3"]
    assert score("in", restart=True, encoding="latin-1")["error"].to_pylist() == [None]


def test_a_large_row_group_of_parquet_is_never_in_memory_as_a_whole() -> None:
    noise = np.random.default_rng(0).integers(97, 122, (20_000, 1_000), dtype=np.uint8)
    pq.write_table(pa.table({"text": [row.tobytes().decode() for row in noise]}), "in.parquet", row_group_size=20_000)
    before, items = pa.total_allocated_bytes(), iter(Inputs(Path("in.parquet"), "reviews", "text", "text", "utf-8"))
    next(items)
    assert pa.total_allocated_bytes() - before < Path("in.parquet").stat().st_size / 2


def test_an_input_without_rows_gives_an_output_without_rows() -> None:
    Path("in.csv").write_text("id,text\n")
    table = score("in.csv")
    assert table.num_rows == 0 and "probability_positive" in table.column_names


@pytest.mark.process
@given(
    st.lists(st.lists(st.sampled_from(["good", "bad", "zebra", " "]), max_size=30), max_size=40),
    st.integers(1, 50),
    st.integers(1, 50),
)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_neither_batches_nor_parts_nor_threads_change_an_answer(texts: list[list[str]], batch: int, part: int) -> None:
    write_csv("in.csv", [" ".join(words) for words in texts])
    one = score("in.csv", batch_size=1, restart=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "PART_ROWS", part)
        two = score("in.csv", batch_size=batch, threads=3, restart=True)
        assert two == score("in.csv", batch_size=batch, threads=1, restart=True)
    assert one.select(["row", "name", "label", "error"]) == two.select(["row", "name", "label", "error"])
    ours, theirs = matrix(one).astype(float), matrix(two).astype(float)
    assert np.nanmax(np.abs(ours - theirs), initial=0) <= 1e-6


@pytest.mark.proof
def test_killed_at_any_step_of_its_writing_it_goes_on_to_the_same_bytes() -> None:
    write_csv("in.csv", [f"good {'bad ' * (row % 5)}" for row in range(50)])
    Path("out").mkdir()
    command = [sys.executable, str(ROOT / "tests/killed_scoring.py"), "in.csv", "out/out.parquet", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.splitlines()[-1].split()[0])
    assert kills >= 30, done.stdout


def test_a_power_cut_after_scoring_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new name is on the disk before the parts, from which it could be made again, go."""
    write_csv("in.csv", TEXTS)
    calls: list[tuple[str, str]] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        calls.append(("rename", target.name))
        return replace(path, target)

    def recorded_unlink(path: Path, missing_ok: bool = False) -> None:
        calls.append(("unlink", path.name))
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    monkeypatch.setattr(Path, "unlink", recorded_unlink)
    score("in.csv")
    renamed = calls.index(("rename", "out.parquet"))
    assert calls[renamed + 1 : renamed + 3] == [("fsync", str(Path.cwd())), ("unlink", "part-000000.parquet")]


@pytest.mark.process
def test_the_command_goes_on_after_kill_9_and_after_ctrl_c() -> None:
    write_csv("in.csv", ["good film the bad " * 9] * 40_000)  # longer than a busy machine takes to stop it
    whole = convoy("in.csv", "whole.parquet", "--task", "reviews")
    assert whole.wait(timeout=120) == 0 and "40000 rows, 0 of them" in whole.communicate()[0]
    parts = Path("out.parquet.parts")
    for number, stop in ((1, signal.SIGKILL), (4, signal.SIGINT)):
        process = convoy("in.csv", "out.parquet", "--task", "reviews")
        until = time.monotonic() + 60
        while not (parts / f"part-{number:06}.parquet").exists():
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.001)
        process.send_signal(stop)
        _, said = process.communicate(timeout=60)
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[stop] and not Path("out.parquet").exists()
        assert "Traceback" not in said and (stop == signal.SIGKILL or "without --restart, goes on" in said)
    kept = len(list(parts.glob("part-*")))
    last = convoy("in.csv", "out.parquet", "--task", "reviews")
    _, said = last.communicate(timeout=60)
    assert last.returncode == 0 and kept >= 5 and f"{kept * scoring.PART_ROWS}/40000" in said  # it did not begin anew
    assert Path("out.parquet").read_bytes() == Path("whole.parquet").read_bytes() and not parts.exists()


def begin(monkeypatch: pytest.MonkeyPatch, texts: int = 5) -> Path:
    """A scoring that ended after its first part."""
    write_csv("in.csv", ["good"] * texts)
    monkeypatch.setattr(scoring, "PART_ROWS", 2)
    before = Scorer.score

    def score_once(scorer: Scorer, first_row: int, items: list[Any]) -> pa.Table:
        if first_row:
            raise OSError("a disk that is full")
        return before(scorer, first_row, items)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(Scorer, "score", score_once)
        score("in.csv")
    return Path("out.parquet.parts")


def test_a_changed_input_is_refused_and_restart_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = begin(monkeypatch)
    assert [path.name for path in parts.glob("part-*")] == ["part-000000.parquet"]
    write_csv("in.csv", ["bad"] * 5)
    with pytest.raises(ScoringRefused, match=r"input was .*--restart"):
        score("in.csv")
    assert score("in.csv", restart=True)["label"].to_pylist() == ["negative"] * 5 and not parts.exists()


@pytest.mark.parametrize("change", ["content", "removal", "arrival"])
def test_a_changed_image_that_a_table_names_is_another_input(change: str) -> None:
    Path("images").mkdir()
    for number in range(5):
        Path(f"images/{number}.png").write_bytes(png(50 * number))
    names = [f"images/{number}.png" for number in range(5)] + ["images/none.png", "nul\0.png", "x" * 300]
    write_csv("in.csv", names, column="path")
    inputs = Inputs(Path("in.csv"), "fashion", "image", "path", "utf-8")
    before, table = inputs.fingerprint(), Path("in.csv").stat().st_mtime_ns
    assert inputs.fingerprint() == before
    if change == "content":
        Path("images/1.png").write_bytes(png(7))
    elif change == "removal":
        Path("images/1.png").unlink()
    else:
        Path("images/none.png").write_bytes(png(7))
    assert Path("in.csv").stat().st_mtime_ns == table and inputs.fingerprint() != before
    assert "files" not in Inputs(Path("in.csv"), "reviews", "text", "path", "utf-8").fingerprint(), (
        "its texts are in the table"
    )


def test_another_model_or_another_option_is_refused(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    begin(monkeypatch)
    with pytest.raises(ScoringRefused, match="options was"):
        score("in.csv", batch_size=4)
    write_text_bundle(place / "deployed/reviews/b", TEXT_CARD.model_copy(update={"params": {"epochs": 2}}))
    switch(place, "b")
    with pytest.raises(ScoringRefused, match=digest_of(place / "deployed/reviews/b")):
        score("in.csv")


def test_a_swap_of_the_model_while_it_runs_changes_no_row(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    write_csv("in.csv", TEXTS)
    expected, before = score("in.csv"), Scorer.score
    card = TEXT_CARD.model_copy(update={"labels": ("worse", "better")})
    write_text_bundle(place / "deployed/reviews/b", card)

    def swap_and_score(scorer: Scorer, first_row: int, items: list[Any]) -> pa.Table:
        if first_row == 3:
            switch(place, "b")
        return before(scorer, first_row, items)

    monkeypatch.setattr(Scorer, "score", swap_and_score)
    assert score("in.csv", "again.parquet", threads=1).equals(expected)
    assert "probability_better" in score("in.csv", "new.parquet").column_names


def test_an_input_that_changes_while_it_is_scored_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv("in.csv", TEXTS)
    before = Scorer.score

    def append_and_score(scorer: Scorer, first_row: int, items: list[Any]) -> pa.Table:
        with open("in.csv", "a") as stream:
            stream.write("9,late\n")
        return before(scorer, first_row, items)

    monkeypatch.setattr(Scorer, "score", append_and_score)
    with pytest.raises(ScoringRefused, match="changed while it was scored"):
        score("in.csv")
    assert not Path("out.parquet").exists()


def test_two_processes_never_write_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = begin(monkeypatch)
    other = scoring.Parts(Path("out.parquet")).begun(json.loads((parts / "job.json").read_text()), restart=False)
    with other, pytest.raises(ScoringRefused, match="another process"):
        score("in.csv")
    assert score("in.csv").num_rows == 5


def test_what_is_in_the_way_is_left_as_it_is() -> None:
    write_csv("in.csv", TEXTS)
    Path("out.parquet").write_text("mine")
    with pytest.raises(ScoringRefused, match=r"out\.parquet exists.*--restart"):
        score("in.csv")
    assert not Path("out.parquet.parts").exists()
    Path("out.parquet").unlink()
    Path("out.parquet.parts").mkdir()
    Path("out.parquet.parts/mine").touch()
    for restart in (False, True):
        with pytest.raises(ScoringRefused, match="mine, which is not Convoy's"):
            score("in.csv", restart=restart)
    Path("dir.parquet").mkdir()
    with pytest.raises(ScoringRefused, match="in the way"):
        score("in.csv", "dir.parquet", restart=True)


def test_what_makes_no_sense_is_a_sentence_that_says_what_does() -> None:
    write_csv("in.csv", TEXTS)
    pq.write_table(pa.table({"text": TEXTS}), "in.parquet")
    Path("folder").mkdir()
    Path("no.parquet").write_text("no Parquet")
    Path("keys.jsonl").write_text('{"other": "good"}\n')
    for source, output, options, said in [
        ("missing.csv", "out.parquet", {}, "missing.csv is missing"),
        ("in.csv", "out.csv", {}, "end in .parquet"),
        ("in.parquet", "in.parquet", {"restart": True}, "is INPUT"),
        ("folder", "folder/below/out.parquet", {}, "within it"),
        ("in.csv", "out.parquet", {"column": "review"}, "has no column 'review', it has id, text;"),
        ("in.parquet", "out.parquet", {"column": "review"}, "has no column 'review', it has text;"),
        ("keys.jsonl", "out.parquet", {}, "none of the 1 rows has a `text`"),
        ("in.csv", "out.parquet", {"encoding": "utf-9"}, "--encoding utf-9 is not known"),
        ("in.csv", "out.parquet", {"encoding": "utf-16"}, "is not utf-16"),
        ("in.csv", "out.parquet", {"polarity": "dark_on_light"}, "--polarity is for images"),
        ("no.parquet", "out.parquet", {}, "cannot be read after row 0"),
        (sys.executable, "out.parquet", {}, "is no table; known are .csv, .tsv, .jsonl, .parquet"),
    ]:
        with pytest.raises((ScoringRefused, SourceRefused)) as refused:
            score(source, output, **options)
        assert said in str(refused.value) and not Path("out.parquet.parts").exists()


@pytest.mark.process
def test_without_a_deployed_model_it_names_the_folder_and_the_remedy(place: Path) -> None:
    switch(place, "../fashion/a")
    with pytest.raises(BundleInvalid, match="is a bundle for fashion, not for reviews"):
        load("reviews")
    shutil.rmtree(place / "deployed")
    process = convoy("in.csv", "out.parquet", "--task", "reviews")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in said
    assert str(place / "deployed/reviews/current") in said and "python -m convoy publish" in said


@pytest.mark.process
def test_scoring_loads_no_torch_and_says_what_is_missing() -> None:
    asked = "import sys, convoy.operations.score.score; assert not {'torch', 'mlflow', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
    asked = "import sys; sys.modules['pyarrow'] = None; from convoy.__main__ import app; app()"
    command = [sys.executable, "-c", asked, "score", "in.csv", "out.parquet", "--task", "reviews"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pyarrow" in done.stderr and "[train]" in done.stderr
    assert "Traceback" not in done.stderr
