"""params.yaml is the one place where numbers are chosen, and says what is wrong with one."""

from pathlib import Path

import pytest
import yaml
from pydantic import Field

from convoy.core import paths
from convoy.core.params import ParamsInvalid, Section, read_section
from convoy.kinds import candidates
from convoy.sources.items import SourceParams
from convoy.training.candidate import CandidateParams
from convoy.training.trainer import TrainerParams
from pipelines import (
    baselines,
    evaluate,
    evaluate_stream,
    export,
    export_stream,
    prepare,
    train,
    train_stream,
)
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


SECTIONS: dict[tuple[str, ...], type[Section]] = {
    ("fetch_images",): SourceParams,
    ("fetch_text",): SourceParams,
    ("prepare_images",): prepare.params_model("image"),
    ("prepare_text",): prepare.params_model("text"),
    ("train", "trainer"): TrainerParams,
    ("baselines",): baselines.Params,
    ("choose",): SelectionParams,
    ("export",): export.Params,
    ("evaluate",): evaluate.Params,
    ("train_stream",): train_stream.Params,
    ("train_stream", "batches"): candidates.batch_model("text-stream"),
    ("train_stream", "network"): candidates.network_model("text-stream", "lstm"),
    ("export_stream",): export_stream.Params,
    ("evaluate_stream",): evaluate_stream.Params,
}
for task in paths.DATA_KINDS:
    for architecture in paths.ARCHITECTURES:
        SECTIONS[("train", task, architecture)] = train.Params
        SECTIONS[("train", task, architecture, "batches")] = candidates.batch_model(task)
        SECTIONS[("train", task, architecture, "network")] = candidates.network_model(task, architecture)


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
    # What a candidate's own sections hold is read as these, below; the members of `baselines` have names of their own.
    is_candidate = issubclass(SECTIONS[keys], CandidateParams)
    inside = [leaf for leaf in leaves(section) if not (is_candidate and leaf[0] in ("batches", "network"))]
    for leaf in inside:
        wrong = changed(section, leaf, change)
        for key in reversed(keys):
            wrong = {key: wrong}
        path = write(tmp_path, yaml.safe_dump(wrong))
        with pytest.raises(ParamsInvalid) as error:
            read_section(SECTIONS[keys], *keys, path=path)
        assert ".".join(map(str, [*keys, *leaf[:-1]])) in str(error.value)
        assert str(leaf[-1]) in str(error.value)


def test_what_all_candidates_train_with_is_the_same() -> None:
    params = yaml.safe_load(paths.PARAMS.read_text())
    assert params["train_stream"]["trainer"] == params["train"]["trainer"]
