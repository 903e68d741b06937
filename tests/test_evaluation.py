"""Reports tell what happened: figures that can be checked by hand, pictures that exist and repeat."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convoy.evaluation import metrics, plots
from convoy.evaluation.metrics import accuracy, classification_metrics

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
NAMES = ("negative", "positive")


def test_metrics_are_those_of_the_definition() -> None:
    metrics = classification_metrics(LABELS, PROBABILITIES)
    assert metrics["accuracy"] == 0.5
    assert metrics["macro_f1"] == 0.5
    assert metrics["log_loss"] == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.4]).mean(), abs=1e-6)
    assert metrics["n"] == 4


def test_a_label_that_never_occurs_counts_in_the_macro_average() -> None:
    assert classification_metrics(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]]))["macro_f1"] == 0.5


@given(st.integers(0, 300), st.integers(1, 300))
def test_an_interval_holds_its_accuracy_and_shrinks_with_n(hits: int, n: int) -> None:
    correct = np.arange(n) < hits
    found, of_more = accuracy(correct), accuracy(np.tile(correct, 4))
    assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1
    assert of_more["high"] - of_more["low"] < found["high"] - found["low"]


def test_an_interval_is_that_of_wilson() -> None:
    """By hand: 8 of 10, z = 1.96."""
    assert accuracy(np.arange(10) < 8) == {"accuracy": 0.8, "low": 0.490162, "high": 0.943318, "n": 10}


def test_the_surest_mistakes_come_first() -> None:
    assert list(plots.surest_mistakes(LABELS, PROBABILITIES, 10)) == [1, 3]
    assert list(plots.surest_mistakes(LABELS, PROBABILITIES, 1)) == [1]


def test_predictions_have_a_line_per_item() -> None:
    lines = plots.predictions_csv(LABELS, PROBABILITIES, NAMES).decode().splitlines()
    assert lines == [
        "actual,predicted",
        "negative,negative",
        "negative,positive",
        "positive,positive",
        "positive,negative",
    ]


@pytest.mark.parametrize("label", ["a\rb", "a\r\nb", 'say "hi", you', "/pol/", "N/A", " a "])
def test_predictions_give_odd_labels_back(label: str) -> None:
    content = plots.predictions_csv(LABELS, PROBABILITIES, (label, "positive")).decode()
    rows = list(csv.reader(io.StringIO(content, newline="")))
    assert rows[1:] == [[label, label], [label, "positive"], ["positive", "positive"], ["positive", label]]


def test_a_label_is_no_formula_in_predictions() -> None:
    content = plots.predictions_csv(LABELS, PROBABILITIES, ["=1+1", "\r@x"]).decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert rows[1] == {"actual": "'=1+1", "predicted": "'\r@x"} and len(rows) == len(LABELS)


@pytest.mark.process
def test_pictures_are_drawn_and_come_out_the_same(tmp_path: Path) -> None:
    texts = ["costs $5 <br /> & $6", "good", "x" * 900, "bad"]
    images = np.zeros((4, 28, 28, 1), dtype=np.uint8)
    for name in ("one", "two"):
        for kind, figure in {
            "confusion": plots.draw_confusion(LABELS, PROBABILITIES, NAMES, "test"),
            "images": plots.draw_mistakes("image", images, LABELS, PROBABILITIES, NAMES),
            "texts": plots.draw_mistakes("text", texts, LABELS, PROBABILITIES, NAMES),
        }.items():
            plots.save_figure(figure, tmp_path / name / f"{kind}.png")
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def test_no_mistakes_is_a_picture_too(tmp_path: Path) -> None:
    perfect = np.eye(2)[LABELS]
    plots.save_figure(plots.draw_mistakes("text", ["a"] * 4, LABELS, perfect, NAMES), tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 0


@pytest.mark.process
def test_a_thousand_labels_make_pictures_that_can_be_opened(tmp_path: Path) -> None:
    labels = np.arange(2_000) % 1_000
    names = [f"label {number}" for number in range(1_000)]
    sure = np.eye(1_000)[(labels + (np.arange(2_000) < 30)) % 1_000]
    images = np.zeros((2_000, 8, 8, 3), dtype=np.uint8)
    found = {"class": metrics.per_class(labels, labels == sure.argmax(axis=1), names)}
    for figure in (
        plots.draw_confusion(labels, sure, names, "test"),
        plots.draw_mistakes("image", images, labels, sure, names),
        plots.draw_slices(found, "test"),
    ):
        plots.save_figure(figure, tmp_path / "picture.png")
        with Image.open(tmp_path / "picture.png") as picture:
            assert max(picture.size) < 4_000


def test_labels_that_look_like_formulas_are_names(tmp_path: Path) -> None:
    names = ("$\\frac{1}{", "a_$b$^")
    plots.save_figure(plots.draw_confusion(LABELS, PROBABILITIES, names, "$test"), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1_000
