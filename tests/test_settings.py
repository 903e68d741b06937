"""The settings that the Makefile and docs/train.md offer beside the defaults are ones that training takes."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from convoy import candidates
from convoy.classifier import LearningParams
from convoy.layout import ARCHITECTURES, DATA_KINDS
from convoy.training import TrainerParams

DIMENSIONS = {"image": {"size_px": 28, "channels": 1}, "text": {"vocabulary": 200, "pad_id": 0}}
INPUTS = {"image": torch.zeros(3, 28, 28, 1, dtype=torch.uint8), "text": torch.ones(3, 40, dtype=torch.int64)}


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
    return params["train"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_setting_offered_builds_networks_that_answer(name: str) -> None:
    train = changed(COMMANDS[name])
    TrainerParams.model_validate(train["trainer"])
    for task in DATA_KINDS:
        for architecture in ARCHITECTURES:
            section = train[task][architecture]
            LearningParams.model_validate(section["learning"])
            candidates.batch_params(task, section["batches"])
            description = candidates.Description(
                task=task,
                architecture=architecture,
                network=section["network"],
                dimensions=DIMENSIONS[task],
                labels=("a", "b"),
                training={},
            )
            assert candidates.build(description).eval()(INPUTS[task]).shape == (3, 2)


def test_thorough_and_gpu_settings_differ_from_the_defaults() -> None:
    found = [changed(words) for words in COMMANDS.values()]
    assert all(one != other for index, one in enumerate(found) for other in found[:index])
    assert re.search(r"epochs=\d+", COMMANDS["make thorough"])
