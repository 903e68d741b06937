"""Names of metrics: MLflow takes them for any label, and no two labels share one."""

import re
from unittest.mock import patch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlflow.utils import validation

from convoy.tracking.run_content import flat_metrics, metric_name_part

pytestmark = pytest.mark.mlflow

# The characters that the escape itself is made of, and those that paths give a meaning to, come often.
LABELS = st.text(st.sampled_from("_xX2bf5e./ +:Aa") | st.characters(), max_size=12) | st.text(
    min_size=130, max_size=200
)


def name_of(label: str) -> str:
    (name,) = flat_metrics({"class": {label: {"accuracy": 0.5}}}, "slices")
    return name


def assert_valid(name: str) -> None:
    for windows in (False, True):
        with patch.object(validation, "is_windows", return_value=windows):
            validation._validate_metric(name, 0.5, 0, 0)


@settings(deadline=None)
@given(LABELS)
def test_mlflow_takes_the_name_of_any_label(label: str) -> None:
    assert_valid(name_of(label))


@settings(deadline=None)
@given(LABELS, LABELS)
def test_two_labels_never_share_a_name(one: str, other: str) -> None:
    assume(one.casefold() != other.casefold())  # those are refused, and some stores compare without regard to case
    assert name_of(one).casefold() != name_of(other).casefold()


def _original(part: str) -> str:
    """What `name_part` made this of; a second way to show that nothing else gives the same."""
    return "" if part == "_x_" else re.sub(r"_x([0-9a-f]+)_", lambda found: chr(int(found[1], 16)), part)


@settings(deadline=None)
@given(st.text(st.sampled_from("_x2bf5e./ +:Aa") | st.characters(), max_size=12))
def test_a_name_gives_its_label_back(label: str) -> None:
    assert _original(metric_name_part(label)) == label


@pytest.mark.parametrize("label", ["T-shirt/top", "Ankle boot", "ice_cream", "v1.5", "Größe", "体育", "0"])
def test_ordinary_labels_keep_their_names(label: str) -> None:
    assert name_of(label) == f"slices/class/{label}/accuracy"


@pytest.mark.parametrize(
    ("label", "part"),
    [
        ("/pol/", "_x2f_pol_x2f_"),
        ("C++", "C_x2b__x2b_"),
        ("C#", "C_x23_"),
        ("N/A", "N/A"),
        ("..", "_x2e_."),
        ("a//b", "a_x2f_/b"),
        ("_x2b_", "_x5f_x2b_"),
        ("a\n", "a_xa_"),
        ("", "_x_"),
    ],
)
def test_odd_labels_are_escaped_readably(label: str, part: str) -> None:
    assert metric_name_part(label) == part


def test_long_labels_with_one_beginning_stay_apart() -> None:
    names = [name_of("a" * 150 + end) for end in ("", "b", "c" * 1000)]
    assert len(set(names)) == 3
    for name in names:
        assert_valid(name)
