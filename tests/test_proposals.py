"""What `init` proposes suits the data, and every stage and verb accepts it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from init_verb import PACKAGED, init, values
from sources_of_users import folder_of_images, folder_of_texts, lay, rows, write_table

import pipelines.choose
import pipelines.prepare
from convoy.core import params, paths, tasks
from convoy.core.params import ParamsInvalid, Section, read_section
from convoy.evaluation.report import EvaluateParams
from convoy.export.build import ExportParams, TaskParams
from convoy.kinds.learning import candidates
from convoy.kinds.registry import KINDS, module
from convoy.operations.init import entries, template
from convoy.operations.init.proposal import propose
from convoy.operations.init.source import Stated, detect
from convoy.operations.init.survey import take_survey
from convoy.operations.init.template import Value, to_yaml
from convoy.operations.tuning.space import TuneParams
from convoy.release.gates.registry import PublishParams
from convoy.sources.items import SourceParams
from convoy.training.candidate import CandidateParams
from convoy.training.trainer import TrainerParams

pytestmark = pytest.mark.torch
RELEASE = paths.RELEASE_PARAMS.absolute()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the packaged params.yaml."""
    shutil.copy(PACKAGED, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def require_every_section() -> None:
    """Raises ParamsInvalid where a stage or a verb would."""
    sections: Mapping[str, type[Section]] = {
        "trainer": TrainerParams,
        "choose": pipelines.choose.SelectionParams,
        "export": ExportParams,
        "evaluate": EvaluateParams,
    }
    for name, model in sections.items():
        read_section(model, name)
    for name, model in {"publish": PublishParams, "tune": TuneParams}.items():
        read_section(model, name, path=RELEASE)
    found = tasks.read()
    for data in found.data.values():
        read_section(SourceParams, "data", data.name, "fetch")
        read_section(pipelines.prepare.params_model(data.kind), "data", data.name, "prepare")
        read_section(module(data.kind, "baselines").Baselines, "data", data.name, "baselines")
    for task in found.tasks.values():
        explanation = read_section(TaskParams, "tasks", task.name).explanation
        if explanation is not None:
            params.validate(module(task.kind, "explanation").Params, explanation, task.name)
    for candidate in found.candidates.values():
        entry = read_section(CandidateParams, "candidates", candidate.name)
        params.validate(candidates.batch_model(candidate.kind), entry.batches, candidate.key)
        params.validate(module(candidate.kind, "items.inputs").Input, entry.input or {}, candidate.key)
        candidates.network_params(candidate, entry.network)


def proposed(path: Path) -> dict[str, dict[str, Any]]:
    """The entries that are proposed for a source, by section and name."""
    detected = detect(Stated(path))
    filled = template.fill(detected.kind, propose("mine", detected, take_survey(detected)))
    return {
        section: {name: yaml.safe_load(block)[name] for name, block in blocks.items()}
        for section, blocks in filled.items()
    }


def test_texts_get_an_lstm_and_ngrams(place: Path) -> None:
    found = proposed(folder_of_texts(place / "texts"))
    assert list(found["data"]) == list(found["tasks"]) == ["mine"]
    assert list(found["candidates"]) == ["mine-lstm", "mine-ngrams"]
    ngrams = found["candidates"]["mine-ngrams"]
    assert ngrams["network"]["name"] == "ngrams" and ngrams["input"] == {"max_tokens": None}
    for candidate in found["candidates"].values():
        assert (candidate["task"], candidate["data"], candidate["kind"]) == ("mine", "mine", "text")


def test_images_get_a_cnn_and_an_lstm(place: Path) -> None:
    found = proposed(folder_of_images(place / "images", {"a": 9, "b": 9}))
    assert {name: entry["network"]["name"] for name, entry in found["candidates"].items()} == {
        "mine-cnn": "cnn",
        "mine-lstm": "lstm",
    }
    assert found["tasks"]["mine"]["kind"] == found["data"]["mine"]["kind"] == "image"


def test_images_get_their_size_colours_and_borders(place: Path) -> None:
    def preprocessing(path: Path) -> dict[str, Any]:
        section: dict[str, Any] = proposed(path)["data"]["mine"]["prepare"]["preprocessing"]
        return section

    coloured = preprocessing(folder_of_images(place / "c", {"a": 9, "b": 9}, size=(40, 30)))
    assert (coloured["size_px"], coloured["channels"], coloured["polarity"]) == (48, 3, "any")
    grey = preprocessing(folder_of_images(place / "g", {"a": 9, "b": 9}, size=(28, 20), mode="L"))
    assert (grey["size_px"], grey["channels"], grey["polarity"]) == (28, 1, "any")
    dark = np.zeros((20, 12, 12), np.uint8)
    dark[:, 4:8, 4:8] = 255
    np.savez(place / "dark.npz", images=dark, labels=np.arange(20) % 2)
    found = preprocessing(place / "dark.npz")
    assert (found["size_px"], found["polarity"]) == (16, "light_on_dark")
    for candidate in proposed(place / "dark.npz")["candidates"].values():
        assert candidate["batches"]["flip"] is False


def test_few_items_get_more_epochs_and_shares(place: Path) -> None:
    found = proposed(write_table(place / "t.csv", rows("text", "label")))
    prepare, lstm = found["data"]["mine"]["prepare"], found["candidates"]["mine-lstm"]
    assert prepare["validation_share"] == prepare["test_share"] == 0.15
    trained, size, epochs = 300, lstm["batches"]["size"], lstm["learning"]["epochs"]
    assert size < 64 and epochs > 6
    assert epochs == 60 or 1_200 <= epochs * trained / size < 1_200 + trained / size + 1
    ngrams = found["candidates"]["mine-ngrams"]
    assert (ngrams["learning"]["epochs"], ngrams["batches"]["size"]) == (epochs, size)
    divided = [{**row, "split": ("train", "test")[n % 2]} for n, row in enumerate(rows("text", "label", 1_000))]
    found = proposed(write_table(place / "d.csv", divided))
    assert found["candidates"]["mine-lstm"]["batches"]["size"] == 2 ** int(np.log2(1_000 * 0.65 / 20))


def test_many_items_keep_the_templates_numbers(place: Path) -> None:
    found = proposed(write_table(place / "t.csv", rows("text", "label", 13_000)))
    numbers = {
        name: (entry["learning"]["epochs"], entry["learning"]["patience"], entry["batches"]["size"])
        for name, entry in found["candidates"].items()
    }
    assert numbers == {"mine-lstm": (4, 2, 64), "mine-ngrams": (3, 3, 64)}
    assert found["data"]["mine"]["prepare"]["validation_share"] == 0.06


def test_uneven_labels_alone_are_weighted(place: Path) -> None:
    for make, counts in ((folder_of_images, {"a": 40, "b": 5}), (folder_of_images, {"a": 20, "b": 20})):
        found = proposed(make(place / f"{counts['b']}", counts))
        expected = "balanced" if counts["b"] == 5 else "none"
        assert {entry["learning"]["class_weights"] for entry in found["candidates"].values()} == {expected}
    texts = [{"text": f"a text {n}", "label": "a" if n % 9 else "b"} for n in range(90)]
    found = proposed(write_table(place / "t.csv", texts))
    assert {entry["learning"]["class_weights"] for entry in found["candidates"].values()} == {"balanced"}


@pytest.mark.parametrize(("words", "tokens"), [(10, 16), (100, 104), (2_000, 400)])
def test_lengths_and_vocabulary_follow_the_texts(place: Path, words: int, tokens: int) -> None:
    draw = np.random.default_rng(0)
    texts = {
        f"{'ab'[n % 2]}/{n}.txt": " ".join(f"w{w}" for w in draw.integers(0, 300, words)).encode() for n in range(60)
    }
    prepare = proposed(lay(place / "texts", texts))["data"]["mine"]["prepare"]
    assert prepare["preprocessing"]["max_tokens"] == tokens
    assert prepare["preprocessing"]["head_tokens"] == tokens // 3
    assert 200 <= prepare["vocabulary_size"] <= 300


def test_every_stage_accepts_what_is_written(place: Path) -> None:
    texts = write_table(place / "notes: no. 1.jsonl", rows("body", "mood"))
    images = folder_of_images(place / "images", {"yes": 40, "no": 5, "1e3": 9}, size=(33, 20))
    for name, path, options in (("words", texts, ()), ("signs", images, ("--labels", "yes,no,1e3"))):
        code, said, _ = init(path, *options, "--write", name=name)
        assert code == 0 and "params.yaml is written; next: dvc repro" in said
        require_every_section()
        assert values()["data"][name]["fetch"]["path"] == str(path)
        assert "says all this already" in init(path, *options, name=name)[1]
    assert values()["data"]["signs"]["fetch"]["labels"] == ["yes", "no", "1e3"]
    for name, path in (("words", texts), ("signs", images)):
        assert init(path, "--write", "--replace", name=name)[0] == 0
        require_every_section()
        assert list(values()["tasks"]) == list(values()["data"]) == [name]


def test_each_value_has_its_reason_as_comment(place: Path) -> None:
    assert init(folder_of_images(place / "images", {"a": 40, "b": 5}), "--write")[0] == 0
    block = entries.entry(paths.PARAMS.read_text(), "data", "mine")
    assert "      source: folder        # a folder per label\n" in block
    assert "  # 45 items; DVC watches it\n" in block and "        channels: 3         # colours were seen\n" in block
    block = entries.entry(paths.PARAMS.read_text(), "candidates", "mine-cnn")
    assert "class_weights: balanced  # the largest label has 8.0 times the items of the smallest\n" in block


def test_every_kind_has_a_template() -> None:
    for kind in KINDS:
        path = Path(module(kind, "survey").__file__).with_name("entries.yaml")
        with pytest.raises(ParamsInvalid, match=r"entries\.yaml: nothing is known of \$\{"):
            template.fill(kind, {"name": Value("mine")})
        assert path.read_text().startswith("#")


WORDS = st.sampled_from(
    ["no", "on", "1e3", "0x10", "1:30", "", "null", "~", "a b", "# no", "é: x", "- x", "012", "a, b"]
)
VALUES = st.one_of(
    WORDS, st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False),
    st.lists(WORDS | st.integers(), max_size=3),
)  # fmt: skip


@given(VALUES)
def test_a_value_is_read_as_it_was(value: Any) -> None:
    written = to_yaml(value)
    assert "\n" not in written
    assert yaml.safe_load(f"a:\n  b: {written}  # why\n  c: {{d: {written}, e: 1}}\n") == {
        "a": {"b": value, "c": {"d": value, "e": 1}}
    }
