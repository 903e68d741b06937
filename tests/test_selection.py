"""The winner is the best by one figure, the same in any order, and never a candidate that has no entry."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from convoy.core import atomic, paths
from convoy.core.params import ParamsInvalid
from convoy.core.tasks import TaskUnknown
from pipelines import choose
from pipelines.choose import CandidateUnknown, choose_winner

METRICS = {"cnn": {"accuracy": 0.9, "log_loss": 0.4}, "lstm": {"accuracy": 0.8, "log_loss": 0.3}}


def test_the_greatest_accuracy_wins() -> None:
    assert choose_winner(METRICS, "accuracy") == "cnn"


def test_the_least_log_loss_wins() -> None:
    assert choose_winner(METRICS, "log_loss") == "lstm"


@given(st.permutations(["a", "b", "c"]))
def test_a_tie_goes_to_the_first_name_in_any_order(names: list[str]) -> None:
    assert choose_winner({name: {"accuracy": 0.5} for name in names}, "accuracy") == "a"


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        choose_winner({}, "accuracy")


FIGURES = {
    "bars-cnn": {"accuracy": 0.9, "macro_f1": 0.8, "log_loss": 0.4},
    "bars-gru": {"accuracy": 0.8, "macro_f1": 0.9, "log_loss": 0.3},
    "bars-mlp": {"accuracy": 0.7, "macro_f1": 0.7, "log_loss": 0.9},
}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three trained candidates of the task `bars`, as the train stages leave them."""
    monkeypatch.chdir(tmp_path)
    for name, figures in FIGURES.items():
        folder = paths.candidate("bars", name)
        atomic.write_json(folder / "candidate.json", {"validation": figures, "name": name})
        atomic.write_bytes(folder / "weights.safetensors", name.encode())
    write_params(*FIGURES)
    return tmp_path


def write_params(*names: str, metric: str = "accuracy") -> None:
    entry = {"task": "bars", "data": "bars", "kind": "image", "network": {"name": "cnn"}}
    params = {
        "data": {"bars": {"kind": "image"}},
        "tasks": {"bars": {"data": "bars", "kind": "image"}},
        "candidates": {name: entry for name in names},
        "choose": {"metric": metric},
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))


def chosen() -> tuple[str, bytes]:
    """The winner by the report, and the weights in its folder."""
    choice = json.loads(paths.choice("bars").read_bytes())
    description = json.loads((paths.winner("bars") / "candidate.json").read_bytes())
    assert description["name"] == choice["candidate"]
    return choice["candidate"], (paths.winner("bars") / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("metric", "winner"), [("accuracy", "bars-cnn"), ("macro_f1", "bars-gru"), ("log_loss", "bars-gru")]
)
def test_the_winners_folder_is_copied_and_its_name_told(trained: Path, metric: str, winner: str) -> None:
    write_params(*FIGURES, metric=metric)
    choose.main("bars")
    assert chosen() == (winner, winner.encode())
    report = json.loads(paths.choice("bars").read_bytes())
    assert report == {"candidate": winner, "metric": metric, "candidates": FIGURES}


def test_a_folder_that_no_entry_names_stops_the_choice(trained: Path) -> None:
    choose.main("bars")
    write_params("bars-gru", "bars-mlp")  # the winner's entry is gone; DVC leaves its folder
    with pytest.raises(CandidateUnknown) as error:
        choose.main("bars")
    for words in ("candidates/bars holds bars-cnn", "no entry", "`rm -r candidates/bars/bars-cnn`", "put its entry"):
        assert words in str(error.value)
    assert chosen()[0] == "bars-cnn", "nothing was written"


def test_a_candidate_that_was_removed_no_longer_wins(trained: Path) -> None:
    choose.main("bars")
    write_params("bars-gru", "bars-mlp")
    shutil.rmtree(paths.candidate("bars", "bars-cnn"))
    choose.main("bars")
    assert chosen() == ("bars-gru", b"bars-gru")
    assert list(json.loads(paths.choice("bars").read_bytes())["candidates"]) == ["bars-gru", "bars-mlp"]


def test_a_winner_leaves_no_file_of_the_one_before(trained: Path) -> None:
    (paths.candidate("bars", "bars-cnn") / "tokenizer.json").touch()
    choose.main("bars")
    write_params(*FIGURES, metric="log_loss")
    choose.main("bars")
    assert {path.name for path in paths.winner("bars").iterdir()} == {"candidate.json", "weights.safetensors"}


def test_a_candidate_that_is_not_trained_is_named_by_its_file(trained: Path) -> None:
    write_params(*FIGURES, "bars-rnn")
    with pytest.raises(FileNotFoundError, match=r"candidates/bars/bars-rnn/candidate\.json"):
        choose.main("bars")


def test_an_unknown_task_and_an_unknown_metric_are_refused(trained: Path) -> None:
    with pytest.raises(TaskUnknown, match="no task 'stripes'"):
        choose.main("stripes")
    write_params(*FIGURES, metric="beauty")
    with pytest.raises(ParamsInvalid, match=r"choose\.metric is 'beauty'"):
        choose.main("bars")
