"""A fingerprint changes with everything that changes weights, and with nothing else."""

from pathlib import Path

import pytest

from convoy.training import checkpoints as module
from convoy.training.checkpoints import fingerprint, training_environment

pytestmark = pytest.mark.torch
PARAMS = {"learning": {"epochs": 2}}
AROUND = {"torch": "2", "lightning": "2", "device": "cpu", "threads": 2}


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    (tmp_path / "train.arrow").write_bytes(b"rows")
    return [tmp_path / "train.arrow"]


def test_the_same_things_have_the_same_fingerprint(data: list[Path]) -> None:
    found = fingerprint(PARAMS, data, AROUND)
    assert len(found) == 64
    data[0].touch()
    assert fingerprint({"learning": {"epochs": 2}}, data, dict(AROUND)) == found


@pytest.mark.parametrize("name", AROUND)
def test_other_surroundings_have_another(name: str, data: list[Path]) -> None:
    assert fingerprint(PARAMS, data, AROUND | {name: "other"}) != fingerprint(PARAMS, data, AROUND)


def test_other_params_and_other_data_have_another(data: list[Path]) -> None:
    before = fingerprint(PARAMS, data, AROUND)
    assert fingerprint({"learning": {"epochs": 3}}, data, AROUND) != before
    data[0].write_bytes(b"other rows")
    assert fingerprint(PARAMS, data, AROUND) != before


def test_other_code_has_another(data: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(PARAMS, data, AROUND)
    edited = tmp_path / "fingerprint.py"
    edited.write_bytes(Path(module.__file__).read_bytes() + b"# edited\n")
    monkeypatch.setattr(module.__spec__, "origin", str(edited))
    assert fingerprint(PARAMS, data, AROUND) != before


def test_the_surroundings_are_those_of_this_process() -> None:
    assert training_environment("cpu")["device"] == "cpu"
    assert set(training_environment("auto")) == set(AROUND)
