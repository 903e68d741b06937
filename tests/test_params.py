"""params.yaml is the one place where numbers are chosen, and says what is wrong with one."""

from pathlib import Path

import prepared_splits
import pytest
import yaml
from pydantic import Field

from convoy.core import paths, tasks
from convoy.core.params import ParamsInvalid, Section, read_section, validate
from convoy.evaluation.report import EvaluateParams
from convoy.export.build import ExportParams, TaskParams
from convoy.kinds.learning import candidates
from convoy.kinds.registry import module
from convoy.sources.items import SourceParams
from convoy.training.candidate import CandidateParams
from convoy.training.trainer import TrainerParams
from pipelines import prepare
from pipelines.choose import SelectionParams

pytestmark = pytest.mark.torch


class Rate(Section):
    rate: float = Field(gt=0, lt=1)
    name: str


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_a_section_is_read_by_its_keys(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {image: {rate: 0.5, name: a}}")
    assert read_section(Rate, "train", "image", path=path) == Rate(rate=0.5, name="a")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {rate: 1.5, name: a}", ["train.rate", "1.5", "less than 1"]),
        ("train: {rate: 0.5}", ["train.name", "missing"]),
        ("train: {rate: 0.5, name: a, raet: 1}", ["train.raet", "not a known key"]),
        ("train: {rate: fast, name: a}", ["train.rate", "'fast'", "number"]),
        ("other: {}", ["section train", "missing"]),
        ("train: [", ["not valid YAML"]),
    ],
)
def test_an_error_names_the_file_the_key_the_value_and_the_expectation(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ParamsInvalid) as error:
        read_section(Rate, "train", path=path)
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_demo_changes_only_keys_that_params_has() -> None:
    def unknown(changes: dict, params: dict) -> list[str]:
        return [
            key
            for key, value in changes.items()
            if key not in params or (isinstance(value, dict) and unknown(value, params[key]))
        ]

    params = yaml.safe_load(paths.PARAMS.read_text())
    assert unknown(yaml.safe_load(Path("demo.yaml").read_text()), params) == []


ENTRIES = tasks.read()
SECTIONS: dict[tuple[str, ...], type[Section]] = {
    ("trainer",): TrainerParams,
    ("choose",): SelectionParams,
    ("export",): ExportParams,
    ("evaluate",): EvaluateParams,
}
for data in ENTRIES.data.values():
    SECTIONS["data", data.name, "fetch"] = SourceParams
    SECTIONS["data", data.name, "prepare"] = prepare.params_model(data.kind)
    SECTIONS["data", data.name, "baselines"] = module(data.kind, "baselines").Baselines
for task in ENTRIES.tasks.values():
    SECTIONS["tasks", task.name] = TaskParams
    if yaml.safe_load(paths.PARAMS.read_text())["tasks"][task.name]["explanation"]:
        SECTIONS["tasks", task.name, "explanation"] = module(task.kind, "explanation").Params
for candidate in ENTRIES.candidates.values():
    SECTIONS["candidates", candidate.name] = CandidateParams
    SECTIONS["candidates", candidate.name, "batches"] = candidates.batch_model(candidate.kind)
# What an entry's own sections hold is read by its kind.
BY_KIND = {CandidateParams: ("batches", "network", "input"), TaskParams: ("explanation",)}


def leaves(content: object, *keys: object):
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, *keys, key)
    elif keys:
        yield keys


def changed(content: dict, keys: tuple, change: str) -> dict:
    """A copy in which the leaf is of a kind that nothing expects, is missing, or has a neighbour that nobody knows."""
    copy = yaml.safe_load(yaml.safe_dump(content))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    if change == "wrong":
        inner[keys[-1]] = {"no": ["such", "thing"]}
    elif change == "missing":
        del inner[keys[-1]]
    else:
        inner[f"{keys[-1]}_"] = 1
    return copy


@pytest.mark.parametrize("keys", SECTIONS, ids=".".join)
@pytest.mark.parametrize("change", ["wrong", "missing", "unknown"])
def test_every_value_of_params_that_is_wrong_missing_or_unknown_is_named(
    tmp_path: Path, keys: tuple[str, ...], change: str
) -> None:
    params = yaml.safe_load(paths.PARAMS.read_text())
    section = params
    for key in keys:
        section = section[key]
    for leaf in leaves(section):
        if leaf[0] in BY_KIND.get(SECTIONS[keys], ()) and (len(leaf) > 1 or change == "wrong"):
            continue
        wrong = changed(section, leaf, change)
        for key in reversed(keys):
            wrong = {key: wrong}
        path = write(tmp_path, yaml.safe_dump(wrong))
        with pytest.raises(ParamsInvalid) as error:
            read_section(SECTIONS[keys], *keys, path=path)
        assert ".".join(map(str, [*keys, *leaf[:-1]])) in str(error.value)
        assert str(leaf[-1]) in str(error.value)


@pytest.mark.parametrize("name", ENTRIES.candidates)
@pytest.mark.parametrize("change", ["wrong", "missing", "unknown"])
def test_every_number_of_a_network_that_is_wrong_missing_or_unknown_is_named(name: str, change: str) -> None:
    section = yaml.safe_load(paths.PARAMS.read_text())["candidates"][name]["network"]
    candidate = ENTRIES.candidates[name]
    candidates.network_params(candidate, section)
    for leaf in leaves(section):
        if leaf == ("name",):
            continue
        with pytest.raises(ParamsInvalid) as error:
            candidates.network_params(candidate, changed(section, leaf, change))
        assert ".".join(["candidates", name, "network", *map(str, leaf[:-1])]) in str(error.value)
        assert str(leaf[-1]) in str(error.value)


def test_a_network_that_does_not_exist_is_named_with_those_that_do() -> None:
    candidate = tasks.Candidate("mine", "fashion", "fashion", "image", "gan")
    with pytest.raises(ParamsInvalid, match="no network 'gan' for kind image; there is cnn, gru, lstm, mlp, rnn"):
        candidates.network_params(candidate, {"name": "gan"})


@pytest.mark.parametrize(
    ("kind", "own", "words"),
    [
        ("image", {"size_px": 2}, ["candidates.a.input.size_px", "2", "4"]),
        ("image", {"colours": 3}, ["candidates.a.input.colours", "not a known key"]),
        ("text", {"max_tokens": 0}, ["candidates.a.input.max_tokens", "0"]),
        ("text", {"max_words": 9}, ["candidates.a.input.max_pending_characters", "missing"]),
        ("text", {"max_tokens": 4}, ["head_tokens is 30, must not exceed max_tokens (4)"]),
        ("text", {"max_words": 9, "max_pending_characters": 9, "max_tokens": 5}, ["input.max_tokens", "not a known"]),
    ],
)
def test_an_input_that_a_kind_does_not_know_is_named(
    kind: str, own: dict[str, int], words: list[str], tmp_path: Path
) -> None:
    folder = prepared_splits.write_prepared(tmp_path, kind, {})
    with pytest.raises(ParamsInvalid) as error:
        module(kind, "items.inputs").make(folder, own, "candidates.a.input")
    for word in words:
        assert word in str(error.value)


def test_an_error_of_an_inner_section_names_its_whole_key() -> None:
    with pytest.raises(ParamsInvalid, match=r"params\.yaml: a\.b\.rate is missing"):
        validate(Rate, {"name": "x"}, "a.b")
