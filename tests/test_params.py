"""params.yaml is the one place where numbers are chosen, and says what is wrong with one."""

from pathlib import Path

import pytest
import yaml
from pydantic import Field

from convoy import layout
from convoy.params import ParamsInvalid, Section, read_section


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

    params = yaml.safe_load(layout.PARAMS.read_text())
    assert unknown(yaml.safe_load(Path("demo.yaml").read_text()), params) == []
