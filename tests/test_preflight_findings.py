"""Findings say what was planted, whatever the order of the items, and come out as the same bytes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preflight_censuses import image_census, planted_texts, text_census

from convoy.core import atomic
from convoy.data.findings import PreflightLimits
from convoy.data.inspection import inspect_census
from convoy.data.raw import read_rejections
from convoy.data.report import summary, write_report
from convoy.kinds.preparing.content import BINS, UNKNOWN_TOKENS, Content, Spread, spread
from convoy.kinds.preparing.kind import NearPair, NearPairs, split_pairs
from convoy.kinds.text.preparing.facts import count_scripts
from convoy.sources.items import Rejection

NO_LIMITS = PreflightLimits(**dict.fromkeys(PreflightLimits.model_fields))


def counts_of(content: Content, key: str) -> dict[str, int]:
    return next(counts.counts for counts in content.counts if counts.key == key)


def spread_of(content: Content, key: str) -> Spread:
    return next(shown.spread for shown in content.histograms if shown.key == key)


def test_what_was_planted_is_found() -> None:
    found = inspect_census(planted_texts())
    assert found.counts["test"] == {"label 0": 4, "label 1": 0}
    assert (found.duplicates.groups, found.duplicates.items, found.duplicates.share) == (1, 1, 0.05)
    assert [item.name for item in found.duplicates.examples[0]] == ["table.csv:6", "table.csv:7"]
    assert (found.conflicting.groups, found.conflicting.items) == (1, 2)
    assert {item.label for item in found.conflicting.examples[0]} == {"label 0", "label 1"}
    assert (found.rejected.items, found.rejected.codes) == (3, {"blank_text": 3})
    assert found.rejected.share == pytest.approx(3 / 23, abs=1e-6)
    assert found.balance.missing == {"validation": ("label 1",), "test": ("label 1",)}


def test_an_item_leaks_once_however_many_neighbours_it_has_in_train_and_none_elsewhere() -> None:
    near = inspect_census(planted_texts()).near
    assert {split: (leak.items, leak.share) for split, leak in near.leaked.items()} == {
        "validation": (0, 0.0),
        "test": (2, 0.5),
    }
    assert near.pairs_between == {"train and test": 3, "validation and test": 1}
    assert near.pairs_with_other_label == 1
    assert [pair.distance for pair in near.examples] == [0.0, 0.0, 0.1, 0.2]
    assert [pair.second.split for pair in near.leak_examples["test"]] == ["train", "test", "test"]


def test_a_pair_with_an_item_of_no_split_is_an_error() -> None:
    census = dataclasses.replace(planted_texts(), near=NearPairs((NearPair(5, 8, 0.0),), "alike"))
    with pytest.raises(ValueError, match="items 5 and 8 are called near, but one of them is in no split"):
        inspect_census(census)


def test_a_label_sorted_source_is_told_from_the_shuffled_splits() -> None:
    shuffled = np.random.default_rng(0).permutation(1000)
    splits = {"train": shuffled[:800], "test": shuffled[800:]}
    found = inspect_census(text_census(["text"] * 1000, [0] * 500 + [1] * 500, splits=splits)).order
    assert (found["source"].changes, found["source"].expected) == (1, 500.0)
    assert {where: order.is_sorted for where, order in found.items()} == {"source": True, "train": False, "test": False}


@pytest.mark.process
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=30), st.randoms())
def test_counts_do_not_depend_on_the_order_of_the_items(items: list[tuple[int, int]], random: object) -> None:
    def counted(of: list[tuple[int, int]]) -> list[object]:
        texts, labels = [f"text {content}" for content, _ in of], [label for _, label in of]
        found = inspect_census(text_census(texts, labels, label_names=("a", "b", "c")))
        groups = [(each.groups, each.items, each.share) for each in (found.duplicates, found.conflicting)]
        return [found.counts, *groups, found.balance, found.content]

    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert counted(items) == counted(shuffled)
    repeats = len(items) - len({content for content, _ in items})
    found = inspect_census(text_census([f"text {content}" for content, _ in items], [0] * len(items)))
    assert (found.duplicates.items, found.conflicting.items) == (repeats, 0)


def test_the_same_census_gives_the_same_json() -> None:
    one, two = (atomic.to_json(inspect_census(planted_texts()).model_dump(mode="json")) for _ in range(2))
    assert one == two
    assert b"table.csv:6" in one


def test_images_are_told_by_size_mode_and_brightness() -> None:
    content = inspect_census(image_census(40)).content
    assert counts_of(content, "sizes") == {"20 x 20": 20, "640 x 480": 20}
    assert counts_of(content, "modes") == {"L": 20, "RGB": 20}
    assert content.notes == ("20 are smaller than the model's side, and enlarged.",)
    assert content.numbers == {"enlarged": 20}
    brightness = spread_of(content, "brightness")
    assert (brightness.least, brightness.median, brightness.most) == (0, 19.5, 39)
    assert content.per_label.name == "brightness"
    assert content.per_label.medians == {"class 0": 19.0, "class 1": 20.0}


def test_texts_are_told_by_script_and_by_what_the_vocabulary_does_not_know() -> None:
    splits = {"train": np.array([0, 1]), "test": np.array([2, 3])}
    found = inspect_census(
        text_census(["good film", "хороший фильм!", "映画 ok", "123"], [0, 0, 1, 1], splits=splits)
    ).content
    assert counts_of(found, "texts_per_script") == {"Cyrillic": 1, "Han": 1, "Latin": 1, "no letters": 1}
    assert counts_of(found, "letters_per_script") == {"Cyrillic": 12, "Latin": 10, "Han": 2}
    assert found.shares[1].key == UNKNOWN_TOKENS and found.shares[1].of_split == {"train": 0.1, "test": 0.2}


def test_what_was_dropped_says_nothing_of_what_is_kept() -> None:
    kept = np.array([0, 2])
    splits = {"train": kept[:1], "test": kept[1:]}
    found = inspect_census(text_census(["good", "очень длинный текст", "film"], [0, 1, 0], splits=splits)).content
    assert counts_of(found, "letters_per_script") == {"Latin": 8}
    assert spread_of(found, "characters").most == 4
    assert found.per_label.medians == {"label 0": 10.0, "label 1": None}


def test_letters_are_counted_and_nothing_else() -> None:
    assert count_scripts("Größe 12, ελλ!\u200b") == {"Latin": 5, "Greek": 3}
    assert count_scripts("") == {}


@given(st.lists(st.integers(-1000, 1000), max_size=60))
def test_every_value_stands_in_one_bin(values: list[int]) -> None:
    found = spread(np.array(values, dtype=np.int64))
    assert len(found.bins) == BINS
    assert sum(found.bins) == max(len(values), 1)
    assert found.least <= found.quarter <= found.median <= found.three_quarters <= found.most


def test_a_file_name_that_is_no_text_is_spelt_out() -> None:
    found = inspect_census(
        text_census(["a"], [0], names=["\udcff.txt"], rejections=[Rejection("\udc80", "blank_text", "empty")])
    )
    assert found.samples["label 0"][0].name == "\\udcff.txt"
    assert found.rejected.examples[0].name == "\\udc80"
    atomic.to_json(found.model_dump(mode="json"))


def test_some_rejections_of_every_code_are_shown() -> None:
    many = [Rejection(f"{number}", "blank_text", "empty") for number in range(500)]
    found = inspect_census(
        text_census(["a"], [0], rejections=[*many, Rejection("last", "text_too_long", "long")])
    ).rejected
    assert found.codes == {"blank_text": 500, "text_too_long": 1}
    assert {example.code for example in found.examples} == {"blank_text", "text_too_long"}
    assert len(found.examples) <= 20


def test_a_census_that_lacks_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 labels, but \{'names': 1\}"):
        text_census(["a", "b"], [0, 1], names=["one"])


@given(st.lists(st.integers(-1, 3), max_size=30))
def test_every_two_items_of_different_splits_meet_once(splits: list[int]) -> None:
    split_of = np.array(splits, dtype=np.int64)
    met = [(int(a), int(b)) for one, other in split_pairs(split_of) for a in one for b in other]
    wanted = [(a, b) for a, x in enumerate(splits) for b, y in enumerate(splits) if x > y >= 0]
    assert sorted(met) == sorted(wanted)


def test_pairs_that_were_searched_elsewhere_are_renumbered() -> None:
    found = NearPairs((NearPair(0, 2, 0.5),), "alike", 1, 2).renumbered(np.array([30, 20, 10]))
    assert found == NearPairs((NearPair(10, 30, 0.5),), "alike", 1, 2)


def test_the_summary_names_every_label_of_every_split_also_those_without_an_item() -> None:
    splits = {"train": np.array([0, 1, 2]), "test": np.array([3])}
    found = inspect_census(text_census(["a", "b", "c", "d"], [0, 2, 2, 0], splits=splits))
    assert summary(found, 4)["splits"] == {
        "train": {"n": 3, "label 0": 1, "label 1": 0, "label 2": 2},
        "test": {"n": 1, "label 0": 1, "label 1": 0, "label 2": 0},
    }


def test_every_item_that_is_left_out_as_a_copy_is_in_the_list_with_what_it_is_a_copy_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"text {index}" for index in range(100)] * 2 + ["held out", "held out", "twice", "twice"]
    labels = [*[0, 1] * 100, 0, 1, 0, 1]
    splits = {"train": np.arange(100), "test": np.array([200])}
    copies = {index: "duplicate" for index in range(100, 200)}
    copies |= {201: "duplicate_of_held_out", 202: "conflicting_labels", 203: "conflicting_labels"}
    rejections = [Rejection("first", "blank_text", "empty"), Rejection("second", "label_not_wanted", "x", True)]
    census = text_census(texts, labels, splits=splits, copies=copies, rejections=rejections)
    write_report("notes", census, NO_LIMITS, "limits of", texts.__getitem__)
    listed = read_rejections(Path("reports/data/notes/rejected.csv"))
    assert listed[:2] == rejections
    assert {one.name: one.code for one in listed[2:]} == {f"table.csv:{row + 2}": copies[row] for row in copies}
    assert all(one.ignored for one in listed[2:])
    told = {one.name: one.message for one in listed}
    assert told["table.csv:102"] == "has the content of table.csv:2, which is in train"
    assert told["table.csv:203"] == "has the content of table.csv:202, which is in test"
    assert told["table.csv:204"] == "has the content of table.csv:205, which has the label 'label 1', not 'label 0'"
    assert told["table.csv:205"] == "has the content of table.csv:204, which has the label 'label 0', not 'label 1'"


def test_a_copy_of_what_is_over_a_max_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    splits = {"train": np.array([2]), "test": np.arange(0)}
    census = text_census(["a", "a", "b"], [0, 0, 1], splits=splits, copies={1: "duplicate"})
    write_report("notes", census, NO_LIMITS, "x", ["a", "a", "b"].__getitem__)
    (listed,) = read_rejections(Path("reports/data/notes/rejected.csv"))
    assert listed.message == "has the content of table.csv:2, which is over the max of its split"
