"""A limit that is not kept is a sentence with the value, the limit, its key, examples and what to do; else nothing."""

from typing import Any

import pytest
from preflight_censuses import image_census, planted_texts, text_census

from convoy.data.census import Census
from convoy.data.findings import PreflightLimits, violations
from convoy.data.inspection import inspect_census
from convoy.sources.items import Rejection

NONE: dict[str, Any] = dict.fromkeys(PreflightLimits.model_fields)


def judged(census: Census, **limits: Any) -> list[str]:
    return violations(inspect_census(census), PreflightLimits(**NONE | limits), "data.reviews.prepare.limits")


def test_what_is_null_is_only_told() -> None:
    assert judged(planted_texts()) == []


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (
            {"max_rejected_share": 0.1},
            "max_rejected_share is 0.1, but 3 inputs (13 % of all) could not be used, for example "
            "table.csv:50 (the text is empty), table.csv:51 (the text is empty), table.csv:52 (the text is empty); "
            "mend or remove these, or raise the limit",
        ),
        (
            {"max_duplicate_share": 0.04},
            "max_duplicate_share is 0.04, but 1 items (5 % of all) repeat another one, for example "
            "table.csv:6 and table.csv:7; remove the repeats from the source, or raise the limit",
        ),
        (
            {"max_conflicting_share": 0},
            "max_conflicting_share is 0, but 2 items (10 % of all) have equal content and "
            "different labels, for example table.csv:2 (label 0) and table.csv:21 (label 1); decide for one "
            "label each, or raise the limit",
        ),
        (
            {"max_leakage_share": 0.49},
            "max_leakage_share is 0.49, but 2 items of the split test (50 %) have a near-duplicate "
            "in train, for example table.csv:11 and table.csv:20, table.csv:2 and table.csv:10, table.csv:3 and "
            "table.csv:10; keep one of each pair, or raise the limit; figures of this split are too good by what "
            "it leaks",
        ),
        (
            {"max_imbalance": 2},
            "max_imbalance is 2, but the largest label has 13 items and the smallest 5, a ratio "
            "that is 2.6, for example label 1 (5), label 0 (13); add items of the rare labels or join labels, or raise "
            "the limit",
        ),
        (
            {"min_per_label": 6},
            "min_per_label is 6, but 1 of 2 labels have fewer items, for example label 1 (5); add "
            "items, join labels or leave the label out, or lower the limit",
        ),
        (
            {"max_unknown_share": 0.15},
            "max_unknown_share is 0.15, but the vocabulary does not know so many of the tokens, "
            "for example validation (20 %), test (20 %); raise vocabulary_size, look at the scripts in the report, or "
            "raise the limit",
        ),
    ],
)
def test_a_limit_that_is_not_kept_is_one_whole_sentence(limits: dict[str, Any], found: str) -> None:
    assert judged(planted_texts(), **limits) == [f"data.reviews.prepare.limits.{found}"]


def test_limits_that_are_just_kept_are_kept() -> None:
    exact = {"max_rejected_share": 3 / 23 + 1e-6, "max_duplicate_share": 0.05, "max_conflicting_share": 0.1}
    exact |= {"max_leakage_share": 0.5, "max_imbalance": 2.6, "min_per_label": 5, "max_unknown_share": 0.2}
    assert judged(planted_texts(), **exact) == []


def test_at_most_five_examples_are_named() -> None:
    many = [Rejection(f"{number}.png", "undecodable_image", "broken") for number in range(100)]
    (sentence,) = judged(text_census(["a"], [0], rejections=many), max_rejected_share=0.5)
    assert sentence.count(".png") == 5


def test_a_label_without_items_is_an_infinite_imbalance() -> None:
    (sentence,) = judged(text_census(["a", "b"], [0, 2]), max_imbalance=1000)
    assert "the smallest 0, a ratio that is infinite, for example label 1 (0)" in sentence


def test_images_have_no_unknown_tokens() -> None:
    assert judged(image_census(10), max_unknown_share=0) == []
