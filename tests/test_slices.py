"""Slices part a split: every item is in one of each kind, and what is empty is left out."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convoy.evaluation import metrics, plots

items = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=120)


@given(items)
def test_quartiles_part_the_items(found: list[tuple[int, bool]]) -> None:
    values, correct = np.array([value for value, _ in found]), np.array([right for _, right in found])
    quartiles = list(metrics.per_quartile(values, correct).values())
    assert sum(each["n"] for each in quartiles) == len(found)
    assert sum(each["n"] * each["accuracy"] for each in quartiles) == pytest.approx(correct.sum(), abs=1e-3)
    bounds = [bound for each in quartiles for bound in (each["from"], each["to"])]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-1]) == (values.min(), values.max())


def test_quartiles_of_values_that_differ_are_equally_large() -> None:
    found = metrics.per_quartile(np.random.default_rng(0).permutation(400) / 7, np.ones(400, dtype=bool))
    assert [each["n"] for each in found.values()] == [100] * 4


def test_items_that_do_not_differ_are_one_slice() -> None:
    found = metrics.per_quartile(np.full(10, 300), np.ones(10, dtype=bool))
    assert [(each["from"], each["to"], each["n"]) for each in found.values()] == [(300, 300, 10)]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=60))
def test_classes_part_the_items(found: list[tuple[int, bool]]) -> None:
    labels, correct = np.array([label for label, _ in found]), np.array([right for _, right in found])
    classes = metrics.per_class(labels, correct, ("a", "b", "c", "never"))
    assert "never" not in classes
    assert sum(each["n"] for each in classes.values()) == len(found)


def test_the_picture_is_drawn_and_comes_out_the_same(tmp_path: Path) -> None:
    labels, correct = np.array([0, 0, 1]), np.array([True, True, False])
    found = {
        "class": metrics.per_class(labels, correct, ("negative", "$positive")),
        "length_tokens": metrics.per_quartile(np.array([3, 3, 9]), correct),
    }
    for name in ("one", "two"):
        plots.save_figure(plots.draw_slices(found, "text, test"), tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert min(picture.size) > 100
