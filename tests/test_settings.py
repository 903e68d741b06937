"""The settings that pages, comments and the Makefile offer beside the defaults are ones that the pipeline takes."""

import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from convoy.core import tasks
from convoy.core.params import validate
from convoy.kinds.learning import candidates
from convoy.kinds.learning.input_contract import InputContract
from convoy.training.classifier import LearningParams
from convoy.training.trainer import TrainerParams

pytestmark = pytest.mark.torch
DIMENSIONS = {"image": {"size_px": 28, "channels": 1}, "text": {"vocabulary": 200, "pad_id": 0}}
INPUTS = {"image": torch.zeros(3, 28, 28, 1, dtype=torch.uint8), "text": torch.ones(3, 40, dtype=torch.int64)}

NO_CONTRACT = InputContract(SimpleNamespace(model_dump=lambda mode: {}), {}, False)


def offered(file: str, start: str) -> str:
    """The words after `start` up to the first line that does not go on."""
    return Path(file).read_text().split(start)[1].replace("\\\n", " ").split("\n")[0]


COMMANDS = {
    "params.yaml": "",
    "make thorough": offered("Makefile", "THOROUGH :="),
    "a GPU, as in docs/train.md": offered("docs/train.md", "dvc exp run --name gpu"),
}


def changed(words: str) -> dict[str, Any]:
    """params.yaml with each -S key=value in it. A key that is not there already is a mistake."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    pairs = [word.split("=", 1) for word in shlex.split(words) if "=" in word]
    assert words.count("-S") == len(pairs)
    for key, value in pairs:
        *path, last = key.split(".")
        section = params
        for name in path:
            section = section[name]
        assert last in section, key
        section[last] = yaml.safe_load(value)
    return params


def shown() -> dict[str, list[str]]:
    """The words key=value that each file shows after -S or --set-param; a variable of make has its default."""
    command = ["git", "grep", "-lIE", "-e", "(-S|--set-param)[ =]", "--", ":!tests"]
    words = {}
    for name in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        text = Path(name).read_text()
        for variable, default in re.findall(r"^(\w+) \?= (.*)$", text, re.MULTILINE):
            text = text.replace(f"$({variable})", default)
        words[name] = re.findall(r"(?<![\w-])(?:-S|--set-param)[ =]'?([\w.-]+=(?:\[[^]]*\]|[^\s`'\"]+))", text)
    return {name: settings for name, settings in words.items() if settings}


def flat(section: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Each number of params.yaml by its dotted name."""
    values = {}
    for name, value in section.items():
        values |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return values


def answer(params: dict[str, Any]) -> None:
    """Every candidate of these params is built, and answers."""
    TrainerParams.model_validate(params["trainer"])
    for candidate in tasks.parse(yaml.safe_dump(params)).candidates.values():
        entry, kind = params["candidates"][candidate.name], candidate.kind
        LearningParams.model_validate(entry["learning"])
        validate(candidates.batch_model(kind), entry["batches"], "batches")
        data: Any = SimpleNamespace(dimensions=DIMENSIONS[kind], names=("a", "b"))
        description = candidates.describe(candidate, entry["network"], NO_CONTRACT, data, {})
        assert candidates.build(description).eval()(INPUTS[kind]).shape == (3, 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_offered_builds_networks_that_answer(name: str) -> None:
    answer(changed(COMMANDS[name]))


@pytest.mark.parametrize("name", shown())
def test_every_setting_shown_is_one_of_params(name: str) -> None:
    words = shown()[name]
    answer(changed(" ".join(f"-S {shlex.quote(word)}" for word in words)))
    there = flat(yaml.safe_load(Path("params.yaml").read_text()))
    for key, _, value in (word.partition("=") for word in words):
        assert isinstance(yaml.safe_load(value), kinds_like(there[key])), f"{key}={value}"


def kinds_like(value: Any) -> tuple[type, ...]:
    """The types that a value may have where params.yaml has this one: null stands for any."""
    return (object,) if value is None else (int, float) if type(value) in (int, float) else (type(value),)


def test_settings_are_shown_where_people_look() -> None:
    assert {"Makefile", "docs/train.md", "params.yaml"} <= set(shown())


def test_thorough_and_gpu_settings_differ_from_the_defaults() -> None:
    found = [changed(words) for words in COMMANDS.values()]
    assert all(one != other for index, one in enumerate(found) for other in found[:index])
    assert re.search(r"epochs=\d+", COMMANDS["make thorough"])
