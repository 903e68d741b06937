"""The winner is the best by one figure, and the same whatever the order of the candidates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.choose import choose_winner

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
