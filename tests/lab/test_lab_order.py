"""Texts are shuffled, cut and given phrases as is said of them; what only adds up has neither negation nor contrast."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from convoy.core.params import read_section
from lab.layout import PARAMS
from lab.texts import negation, order
from lab.texts.negation import NegationParams

GOOD, BAD = 1.0, -1.5


def texts(count: int = 20) -> list[order.Tokens]:
    generator = np.random.default_rng(0)
    return [generator.permutation(np.arange(2, 2 + length, dtype=np.int32)) for length in range(1, count + 1)]


@cache
def params() -> NegationParams:
    return read_section(NegationParams, "negation", path=PARAMS)


def scorer(judge: Callable[[list[str]], float]) -> negation.Score:
    return lambda sentences: np.array([judge(sentence.split()) for sentence in sentences])


def weight(word: str) -> float:
    return GOOD if word in params().good_words else BAD if word in params().bad_words else 0.1 * len(word)


@pytest.mark.parametrize("window", [1, 3, 0])
def test_shuffled_words_stay_within_their_windows(window: int) -> None:
    for before, after in zip(texts(), order.shuffle(texts(), window, seed=0), strict=True):
        assert sorted(before) == sorted(after)
        places = {word: place for place, word in enumerate(before)}
        moved = max(abs(places[word] - place) for place, word in enumerate(after))
        assert moved < (window or len(before))
    changed = sum((a != b).any() for a, b in zip(texts(), order.shuffle(texts(), window, seed=0), strict=True))
    assert changed == 0 if window == 1 else changed > 10


def test_what_is_kept_are_the_first_or_the_last_words() -> None:
    text = [np.arange(5, dtype=np.int32), np.arange(2, dtype=np.int32)]
    assert [each.tolist() for each in order.keep(text, 3, "front")] == [[0, 1, 2], [0, 1]]
    assert [each.tolist() for each in order.keep(text, 3, "back")] == [[2, 3, 4], [0, 1]]


@pytest.mark.parametrize("place, found", [(0, [9, 8, 2, 3, 4]), (0.5, [0, 1, 9, 8, 4]), (1, [0, 1, 2, 9, 8])])
def test_a_phrase_takes_the_place_of_as_many_words(place: float, found: list[int]) -> None:
    phrase = np.array([9, 8], np.int32)
    assert order.insert(np.arange(5, dtype=np.int32), phrase, place).tolist() == found
    assert order.insert(np.array([3], np.int32), phrase, place).tolist() == [9, 8]


def test_the_phrase_that_marks_a_label_is_found_and_a_rare_one_is_not() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    written = [generator.integers(10, 60, 30).astype(np.int32) for _ in labels]
    for text, label in zip(written, labels, strict=True):
        text[5:8] = (2, 3, 4) if label else (3, 2, 4)
    written[1][10:13] = (5, 6, 7)
    assert order.key_phrases(written, labels, 1, 1, 20)[0].tolist() == [2, 3, 4]
    assert order.key_phrases(written, labels, 0, 5, 20)[0].tolist() == [3, 2, 4]
    assert [2, 3, 4] not in [phrase.tolist() for phrase in order.key_phrases(written, labels, 0, 5, 20)]
    assert [5, 6, 7] not in [phrase.tolist() for phrase in order.key_phrases(written, labels, 1, 99, 2)]


def test_a_host_gets_a_phrase_of_another_label_than_its_own() -> None:
    labels = np.arange(60) % 3
    written = [np.array([10 * label + 2, 10 * label + 3, 10 * label + 4, 99], np.int32) for label in labels]
    wanted = read_section(order.OrderParams, "order", path=PARAMS)
    hosts = order.draw_hosts((written, labels), labels, 3, wanted)
    assert len(hosts) == 60 and {host.label for host in hosts} == {0, 1, 2}
    for host in hosts:
        assert host.label != labels[host.row] and host.phrase[0] // 10 == host.label


def test_texts_of_one_length_are_in_one_group() -> None:
    group, lengths = order.length_groups([np.zeros(size, np.int32) for size in (1, 1, 2, 3, 9, 9, 9, 9)], 4)
    assert lengths == sorted(lengths) and len(set(group[4:])) == 1
    assert lengths[group[7]] == 9


@pytest.mark.parametrize("distance", [0, 5])
def test_a_sum_over_words_neither_negates_nor_contrasts(distance: int) -> None:
    added = scorer(lambda words: sum(weight(word) for word in words))
    assert np.abs(negation.negation(params(), distance, added)).max() < 1e-9
    assert np.abs(negation.contrast(params(), distance, added)).max() < 1e-9


def test_who_turns_every_word_after_not_negates_by_twice_the_difference() -> None:
    def judge(words: list[str]) -> float:
        return sum(weight(word) * (-1 if "not" in words[:place] else 1) for place, word in enumerate(words))

    found: NDArray[np.float64] = negation.negation(params(), 5, scorer(judge))
    assert found == pytest.approx(np.full(len(found), 2 * (GOOD - BAD)))


def test_who_hears_only_what_follows_but_contrasts_by_the_difference() -> None:
    def judge(words: list[str]) -> float:
        return sum(weight(word) for word in words[words.index("but") if "but" in words else 0 :])

    found = negation.contrast(params(), 5, scorer(judge))
    assert found == pytest.approx(np.full(len(found), GOOD - BAD))


def test_who_hears_the_end_or_the_movie_more_does_not_contrast() -> None:
    def judge(words: list[str]) -> float:
        return sum(place * weight(word) for place, word in enumerate(words, start=1))

    assert np.abs(negation.contrast(params(), 5, scorer(judge))).max() < 1e-9


def test_sentences_differ_by_the_words_between_alone() -> None:
    of_none, of_five = (negation.items(params(), distance) for distance in (0, 5))
    assert {item.fillers for item in of_none} == {""} and all(len(item.fillers.split()) == 5 for item in of_five)
    assert len(of_none) == len(params().good_words) * len(params().bad_words) * params().draws
