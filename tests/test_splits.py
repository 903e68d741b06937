"""Splits lose nothing, share nothing, keep the labels' shares, and come out the same every time."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy.data.splits import distinct, held_out, stratified
from convoy.kinds.preparing.kind import digest

label_lists = st.lists(st.integers(0, 3), min_size=40, max_size=200).filter(
    lambda labels: all(count >= 8 for count in np.bincount(labels) if count)
)


@pytest.mark.process
@given(label_lists, st.integers(0, 5))
def test_a_split_loses_nothing_and_shares_nothing(labels: list[int], seed: int) -> None:
    rest, part = stratified(np.array(labels), 0.25, seed)
    assert sorted([*rest, *part]) == list(range(len(labels)))


@pytest.mark.process
@given(label_lists, st.integers(0, 5))
def test_every_label_has_its_share(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    _, part = stratified(array, 0.25, seed)
    for label, count in zip(*np.unique(array, return_counts=True), strict=True):
        assert abs((array[part] == label).sum() - count * 0.25) <= 0.5


@pytest.mark.process
@given(label_lists, st.integers(0, 5))
def test_held_out_items_stand_in_one_split_each_in_their_shares(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    train, *parts = held_out(array, [0.25, 0.125, 0.125], seed)
    assert sorted(np.concatenate([train, *parts])) == list(range(len(labels)))
    for label, count in zip(*np.unique(array, return_counts=True), strict=True):
        for part, share in zip(parts, [0.25, 0.125, 0.125], strict=True):
            assert abs((array[part] == label).sum() - count * share) <= 1.5


def test_training_items_do_not_depend_on_how_the_rest_is_divided() -> None:
    labels = np.arange(1000) % 5
    train, validation, _, gate = held_out(labels, [0.05, 0.03, 0.02], 0)
    assert np.array_equal(train, stratified(labels, 0.1, 0)[0])
    assert np.array_equal(train, held_out(labels, [0.03, 0.07], 0)[0])
    assert set(validation) | set(gate) < set(stratified(labels, 0.1, 0)[1])


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    labels = np.arange(1000) % 5
    assert np.array_equal(stratified(labels, 0.1, 3)[1], stratified(labels, 0.1, 3)[1])
    assert not np.array_equal(stratified(labels, 0.1, 3)[1], stratified(labels, 0.1, 4)[1])


def test_label_sorted_data_is_shuffled() -> None:
    labels = np.repeat([0, 1], 500)
    rest, part = stratified(labels, 0.2, 0)
    assert 0.3 < labels[rest][:100].mean() < 0.7
    assert 0.3 < labels[part][:100].mean() < 0.7


def test_a_label_that_is_too_rare_for_both_sides_is_an_error() -> None:
    with pytest.raises(ValueError, match="label 1 has 1 items"):
        stratified(np.array([0] * 50 + [1]), 0.1, 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=80))
def test_what_is_kept_is_distinct_and_every_item_is_accounted_for(items: list[tuple[int, int]]) -> None:
    contents = [bytes([content]) for content, _ in items]
    labels = np.array([label for _, label in items], dtype=np.int64)
    kept, dropped = distinct(list(map(digest, contents)), labels)
    kept_contents = [contents[index] for index in kept]
    assert len(set(kept_contents)) == len(kept_contents)
    assert sorted([*kept, *dropped]) == list(range(len(items)))


def test_planted_duplicates_are_found_and_told_apart() -> None:
    contents = [f"text {index}".encode() for index in range(500)]
    labels = np.arange(500) % 2
    planted = contents + contents[:100] + contents[100:110] + [b"in the test set"] * 3
    planted_labels = np.concatenate([labels, labels[:100], 1 - labels[100:110], [0, 0, 1]])
    kept, dropped = distinct(list(map(digest, planted)), planted_labels, taken={digest(b"in the test set")})
    assert Counter(dropped.values()) == {"duplicate": 100, "conflicting_labels": 20, "duplicate_of_held_out": 3}
    assert list(kept) == [index for index in range(500) if not 100 <= index < 110]
