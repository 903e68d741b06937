"""Planted near-duplicates of texts are found over splits, unrelated ones are not, and the search has no favourites."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.kinds.preparing.kind import PAIRS_PER_ITEM, NearPair
from convoy.kinds.text.preparing.near_duplicates import LEAST_JACCARD, near_pairs, shingles

WORDS = [f"word{number}" for number in range(3000)]
SENTENCE = "Nobody has ever said this one before."


def texts(count: int, seed: int) -> list[str]:
    """Unrelated texts of 60 to 300 words; few words are frequent, many are rare."""
    random = Random(seed)
    weights = [1 / (rank + 3) for rank in range(len(WORDS))]
    return [" ".join(random.choices(WORDS, weights, k=random.randint(60, 300))) for _ in range(count)]


def edited(edit: Callable[[list[str], int, Random], None]) -> Callable[[str, Random], str]:
    """An edit of 5 % of the words, at least one."""

    def change(text: str, random: Random) -> str:
        words = text.split()
        for place in sorted(random.sample(range(len(words)), max(1, len(words) // 20)), reverse=True):
            edit(words, place, random)
        return " ".join(words)

    return change


COPIES: dict[str, Callable[[str, Random], str]] = {
    "words changed": edited(lambda words, place, random: words.__setitem__(place, random.choice(WORDS))),
    "words inserted": edited(lambda words, place, random: words.insert(place, random.choice(WORDS))),
    "words left out": edited(lambda words, place, _: words.__delitem__(place)),
    "a sentence added": lambda text, _: f"{text} {SENTENCE}",
    "a sentence before": lambda text, _: f"{SENTENCE} {text}",
    "only case, spaces and punctuation": lambda text, _: text.upper().replace(" ", ",  "),
}


def search(of: list[str], split_of: list[int]) -> set[NearPair]:
    return set(near_pairs(of, np.array(split_of, dtype=np.int64)).pairs)


@pytest.mark.parametrize("copy", COPIES)
def test_at_least_95_of_100_planted_copies_are_found_and_nothing_else(copy: str) -> None:
    random = Random(0)
    train, held_out = texts(300, 1), texts(200, 2)
    held_out[:100] = [COPIES[copy](text, random) for text in train[:100]]
    found = search(train + held_out, [0] * 300 + [1] * 200)
    planted = {(index, 300 + index) for index in range(100)}
    assert len({(pair.first, pair.second) for pair in found} & planted) >= 95
    assert not {(pair.first, pair.second) for pair in found} - planted  # of 60,000 unrelated pairs
    assert all(pair.distance <= 1 - LEAST_JACCARD for pair in found)


def test_the_distance_is_that_of_the_sets_of_word_triples() -> None:
    (pair,) = search(["a b c d e f", "a b c d e g"], [0, 1])
    assert pair == NearPair(0, 1, 0.4)  # 3 of 5 triples are shared


@pytest.mark.parametrize("text", ["这部电影非常好看 我很喜欢", "とても面白い映画でした", "หนังเรื่องนี้สนุกมาก"])
def test_scripts_without_spaces_are_compared_by_their_characters(text: str) -> None:
    assert len(shingles(text)) > 5
    assert len(search([text, text + "!!" + text[:2]], [0, 1])) == 1


def test_blank_texts_are_like_nothing_and_signs_alone_are_compared() -> None:
    assert not search(["", " ", "\n"], [0, 1, 2])
    assert len(search([":-)", ":-)", ":-("], [0, 1, 1])) == 1


POOL = [*texts(4, 3), "short", "short one", "", "...", "\ud800", "ein Wort wie ein anderes Wort"]
POOL += [COPIES["words left out"](text, Random(1)) for text in POOL[:4]]
items = st.lists(st.tuples(st.integers(0, len(POOL) - 1), st.integers(-1, 3)), max_size=12)


@pytest.mark.process
@settings(deadline=None, max_examples=60)
@given(items, st.randoms(use_true_random=False))
def test_pairs_stand_in_two_splits_whatever_the_order_and_equal_texts_are_always_among_them(
    chosen: list[tuple[int, int]], random: Random
) -> None:
    contents, splits = [POOL[content] for content, _ in chosen], [split for _, split in chosen]
    found = search(contents, splits)
    assert all(0 <= splits[pair.first] != splits[pair.second] >= 0 and pair.first < pair.second for pair in found)
    pairs = {(pair.first, pair.second) for pair in found}
    for second, one in enumerate(chosen):
        for first, other in enumerate(chosen[:second]):
            if one[0] == other[0] and POOL[one[0]] and one[1] != other[1] and min(one[1], other[1]) >= 0:
                assert (first, second) in pairs
    order = list(range(len(chosen)))
    random.shuffle(order)
    again = search([contents[index] for index in order], [splits[index] for index in order])
    renamed = {(*sorted((order[pair.first], order[pair.second])), pair.distance) for pair in again}
    assert renamed == {tuple(pair) for pair in found}


def test_where_all_share_a_template_each_lists_a_few_neighbours_and_says_so() -> None:
    random = Random(0)
    letter = "dear customer your invoice {} is due since many days please pay at once or we shall take other steps"
    found = near_pairs([letter.format(random.random()) for _ in range(1500)], np.repeat([0, 1], [1300, 200]))
    assert (found.with_more, found.cut_short) == (200, 0)
    assert len(found.pairs) == 200 * PAIRS_PER_ITEM


def test_a_search_in_a_crowded_bucket_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convoy.kinds.text.preparing.near_duplicates.CANDIDATES_PER_BAND", 3)
    crowd = [f"as good as it ever was and will be {' '.join(text.split()[:30])}" for text in texts(400, 5)]
    found = near_pairs(crowd, np.repeat([0, 1], [390, 10]))
    assert found.cut_short > 0
