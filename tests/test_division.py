"""Every item stands in one split or has its reason; what the source has put somewhere stays there."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from convoy.core.params import ParamsInvalid, read_section
from convoy.core.paths import SPLITS
from convoy.data.splits import DivisionParams, LabelTooRare, SplitEmpty, divide, require_usable

NAMES = ("cat", "dog", "bird")


def params(**changes: object) -> DivisionParams:
    shares = {"validation_share": 0.2, "calibration_share": 0.1, "gate_share": 0.1, "test_share": 0.2}
    return DivisionParams.model_validate({"seed": 0, **shares, **{f"max_{name}": None for name in SPLITS}, **changes})


def keys(contents: list[int]) -> list[bytes]:
    return [b"%d" % content for content in contents]


@pytest.mark.process
@given(
    items=st.lists(st.tuples(st.integers(0, 500), st.integers(-1, 4)), max_size=200),
    enough=st.sets(st.integers(1_000, 9_000), min_size=45, max_size=45),
)
def test_every_item_is_in_one_split_or_dropped_and_no_content_in_two(
    items: list[tuple[int, int]], enough: set[int]
) -> None:
    contents = [*sorted(enough), *(content for content, _ in items)]
    places = np.array([0] * len(enough) + [place for _, place in items])
    labels = np.array(contents) % 3
    try:
        found = divide(keys(contents), labels, places, NAMES, params())
    except SplitEmpty:
        of = {place: set(np.array(contents)[places == place].tolist()) for place in range(1, 5)}
        others = {place: set().union(*(of[other] for other in of if other != place)) for place in of}
        assert any(of[place] and of[place] <= others[place] for place in of), "one has nothing of its own"
        return
    assert sum(map(len, found.rows.values())) + sum(found.dropped.values()) == len(contents)
    held = {name: {contents[row] for row in rows} for name, rows in found.rows.items()}
    assert list(held) == list(SPLITS)
    assert sum(map(len, held.values())) == len(set().union(*held.values()))
    for place, name in enumerate(SPLITS[1:], start=1):
        if (places == place).any():
            assert set(found.rows[name]) <= set(np.flatnonzero(places == place)), "only what the source put there"
        else:
            assert set(labels[found.rows[name]]) == {0, 1, 2}
    assert set(labels[found.rows["train"]]) == {0, 1, 2}


def test_a_hundred_planted_copies_over_the_splits_of_a_source_are_all_found() -> None:
    places = np.repeat([0, 1, 2, 3, 4], 400)
    contents = list(range(2000))
    for copy in range(100):
        contents[copy] = 400 + 16 * copy  # an item of train is one that is held out
    labels = np.array(contents) % 3
    found = divide(keys(contents), labels, places, NAMES, params())
    assert found.dropped["duplicate_of_held_out"] == 100
    assert not set(range(100)) & set(found.rows["train"].tolist())


def test_every_item_that_is_left_out_as_a_copy_has_its_reason() -> None:
    contents = [*range(60), 100, 101, 1, 2, 2, 3, 100, 101, 102]
    places = np.array([0] * 60 + [4, 1] + [0] * 4 + [0, 4, 1])
    labels = np.array(contents) % 3
    labels[65] = 1  # a second 3, of another label
    found = divide(keys(contents), labels, places, NAMES, params(max_train=5))
    assert found.copies == {
        3: "conflicting_labels",
        61: "duplicate_of_held_out",  # of validation, which test has
        62: "duplicate",
        63: "duplicate",
        64: "duplicate",
        65: "conflicting_labels",
        66: "duplicate_of_held_out",
    }
    counts = {"duplicate_of_held_out": 2, "duplicate": 3, "conflicting_labels": 2}
    assert found.dropped == {**counts, "over_max": len(contents) - 7 - sum(map(len, found.rows.values()))}
    assert list(found.dropped) == [*counts, "over_max"], "reports have them in this order"


def test_a_given_split_that_loses_all_to_duplicates_is_refused_with_the_reason_and_the_remedy() -> None:
    contents = [*range(60), *range(100, 110), *range(200, 206), 100, 101, 200, 200]
    places = [0] * 60 + [4] * 10 + [1] * 6 + [2] * 4  # calibration has what test and validation have
    with pytest.raises(SplitEmpty) as error:
        divide(keys(contents), np.array(contents) % 3, np.array(places), NAMES, params())
    for words in ("split 'calibration'", "has 4 items", "2 of test, 2 of validation", "given_splits: false"):
        assert words in str(error.value)


def test_a_given_split_of_which_nothing_can_be_used_is_never_cut_from_train() -> None:
    places = np.array([0] * 60 + [4] * 10 + [1] * 6)
    require_usable(places, np.arange(3, 71))
    with pytest.raises(SplitEmpty, match=r"'validation' .* has 6 items, and none of them can be used; mend them, or"):
        require_usable(places, np.arange(70))


def test_a_label_that_is_too_rare_is_named_with_its_count_and_the_remedy() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 3)
    with pytest.raises(LabelTooRare, match=r"'bird' 3 \(of 1 such labels\); at least 5 each"):
        divide(keys(list(range(43))), labels, np.full(43, -1), NAMES, params())


def test_a_label_that_only_the_test_set_has_is_named() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 3)
    places = np.array([0] * 40 + [4] * 3)
    with pytest.raises(LabelTooRare, match="'bird' 0"):
        divide(keys(list(range(43))), labels, places, NAMES, params())


def test_the_rarest_label_that_is_enough_stands_in_every_split() -> None:
    labels = np.array([0] * 400 + [1] * 400 + [2] * 5)
    found = divide(keys(list(range(805))), labels, np.full(805, -1), NAMES, params(calibration_share=0.01))
    assert all(set(labels[rows]) == {0, 1, 2} for rows in found.rows.values())


def test_a_sorted_split_that_is_cut_keeps_its_labels() -> None:
    labels = np.repeat([0, 1, 2], 200)
    places = np.tile([0, 4], 300)
    found = divide(keys(list(range(600))), labels, places, NAMES, params(max_test=60))
    assert min(np.bincount(labels[found.rows["test"]])) > 10
    assert found.dropped["over_max"] == 240


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, ["prepare.seed is -1", "greater than or equal to 0"]),
        *[
            ({f"max_{name}": most}, [f"prepare.max_{name} is {most}", "or equal to 1"])
            for name in SPLITS
            for most in (0, -5)
        ],
        (
            {"validation_share": 0.7, "calibration_share": 0.1, "gate_share": 0.1, "test_share": 0.1},
            ["validation_share 0.7", "calibration_share 0.1", "gate_share 0.1", "test_share 0.1", "is 1,", "below 1"],
        ),
        ({"validation_share": 0.9}, ["validation_share 0.9", "is 1.3,"]),
        ({"validation_share": 1.5}, ["prepare.validation_share is 1.5", "less than 1"]),
    ],
)
def test_params_that_would_change_the_division_silently_are_refused(
    tmp_path: Path, changes: dict[str, object], words: list[str]
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"prepare": params().model_dump() | changes}))
    with pytest.raises(ParamsInvalid) as error:
        read_section(DivisionParams, "prepare", path=path)
    assert all(word in str(error.value) for word in words), str(error.value)
