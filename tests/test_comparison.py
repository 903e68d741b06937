"""McNemar's test counts only where one alone is right, and is fair to both sides."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from convoy.core import paths
from convoy.evaluation.significance import compare_with_baselines, mcnemar
from convoy.kinds.image import baselines as image_baselines
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.image.items.prepared import write as write_images
from pipelines import baselines

pytestmark = pytest.mark.torch

LINEAR = {"convolutions": [], "hidden": [], "dropout": 0.0, "learning_rate": 0.001, "batch_size": 2}
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


@given(pairs)
def test_it_is_the_same_from_the_other_side(found: list[tuple[bool, bool]]) -> None:
    ours, theirs = np.array(found).T
    there, back = mcnemar(ours, theirs), mcnemar(theirs, ours)
    assert (there["wins"], there["losses"]) == (back["losses"], back["wins"])
    assert there["difference"] == -back["difference"] and there["p"] == back["p"]
    assert there["difference"] == pytest.approx(ours.mean() - theirs.mean(), abs=1e-6)
    assert 0 < there["p"] <= 1


@given(pairs, st.integers(1, 50))
def test_items_that_both_have_right_change_no_p(found: list[tuple[bool, bool]], more: int) -> None:
    ours, theirs = np.array(found).T
    both = np.ones(more, dtype=bool)
    assert mcnemar(ours, theirs)["p"] == mcnemar(np.append(ours, both), np.append(theirs, both))["p"]


def test_p_is_that_of_a_fair_coin() -> None:
    ours, theirs = np.array([True] * 9 + [False]), np.array([False] * 9 + [True])
    assert mcnemar(ours, theirs)["p"] == pytest.approx(2 * (1 + 10) / 2**10)


def test_equal_models_are_not_told_apart() -> None:
    assert mcnemar(np.ones(5, dtype=bool), np.ones(5, dtype=bool)) == {
        "difference": 0.0,
        "wins": 0,
        "losses": 0,
        "p": 1.0,
    }


def test_each_baseline_of_the_table_is_compared(tmp_path: Path) -> None:
    table = tmp_path / "text.csv"
    table.write_text("actual,weak,strong\na,b,a\nb,a,b\na,a,b\n")
    found = compare_with_baselines(np.array([True, True, False]), table)
    assert (found["weak"]["wins"], found["weak"]["losses"]) == (2, 1)
    assert (found["strong"]["wins"], found["strong"]["losses"]) == (0, 0)


def test_baselines_with_odd_labels_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names, actual = ("a\rb", 'say "hi", you', "line\nbreak"), np.array([0, 1, 2, 0])
    params = {"seed": 0, "networks": {"weak": {**LINEAR, "epochs": 1}}}
    task = {"data": "odd", "kind": "image"}
    candidate = {**task, "task": "odd", "network": {"name": "cnn"}}
    entries = {
        "data": {"odd": {"kind": "image", "baselines": params}},
        "tasks": {"odd": task},
        "candidates": {"odd-cnn": candidate},
    }
    Path("params.yaml").write_text(yaml.safe_dump(entries))
    for name in ("train", "test"):
        write_images(paths.split_file("odd", name), ImageSplit(np.zeros((4, 8, 8, 1), np.uint8), actual, names))
    predicted = iter([("weak", np.array([0, 2, 2, 1]))])
    monkeypatch.setattr(image_baselines, "predictions", lambda *_: predicted)
    baselines.main("odd")
    found = compare_with_baselines(np.array([True, True, False, False]), paths.baselines("odd") / "predictions.csv")
    assert (found["weak"]["wins"], found["weak"]["losses"]) == (1, 1)


def test_a_table_of_another_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.csv").write_text("actual,weak\na,b\n")
    with pytest.raises(ValueError, match="1 rows, the test split 2"):
        compare_with_baselines(np.array([True, True]), tmp_path / "text.csv")
