"""What of a piece of text is settled: cut there, the tokenizer finds the same words as in the whole text."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_bundles import STREAM_CARD, stream_tokenizer_json

from convoy.bundles import streaming
from convoy.bundles.streaming import settled_length
from convoy.kinds.text.items.preprocessing import StreamPreprocessing, TextPreprocessor

assert isinstance(STREAM_CARD.preprocessing, StreamPreprocessing)
PREPROCESSOR = TextPreprocessor(STREAM_CARD.preprocessing, stream_tokenizer_json())
# What the tokenizer treats in ways of its own: breaks, apostrophes, white space, what NFKC joins or takes apart.
TRICKY = list("ab'\u2019<>br/ \n\r\t.,!_-=\u0301\u0338\u00b4\uff07\uff3f\u203f\u2122\u2026\u2474\u00bd")
TRICKY += ["<br />", "<br", "<br/>", "\u3000", "\u2028", "\x1c", "\x85", "\u0130", "\u03a3", "\u200d", "\uff9e"]
TRICKY += ["\u1100", "\u1161", "\u11a8", "\u09c7", "\u09be", "\u0627", "\u0653", "\u0f71", "\u0f72", "\U0001d165"]
TRICKY += ["\u3002", "\uff0c", "\U0001f468"]
texts = st.lists(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])), max_size=30).map("".join)


def words(text: str) -> list[str]:
    return PREPROCESSOR.words(text)[0]


@settings(deadline=None)
@given(texts, texts)
@example("the <br", " /> film")
@example("x =", "\u0338 y")
@example("a\n\u0301", "b")
@example("don", "'t stop")
@example("a ", "\u0338")
def test_what_is_settled_has_the_same_words_whatever_follows(text: str, rest: str) -> None:
    end = settled_length(text)
    assert words(text[:end]) + words(text[end:] + rest) == words(text + rest)


def settled_by_every_break(text: str) -> int:
    """What `settled` did first: each place against each break, in quadratic time."""
    breaks = [found.span() for found in streaming._BREAK.finditer(text)]
    for place in range(len(text) - 1, 0, -1):
        if streaming._separates(text[place]) and not any(start < place < end for start, end in breaks):
            return place
    return 0


@settings(deadline=None)
@given(texts, st.lists(st.integers(0, 100), max_size=5))
@example("<br />", [])
@example("a<br ><br  /><br  ", [3, 9])
@example("<br <br", [])
def test_the_linear_search_finds_the_same_place(text: str, places: list[int]) -> None:
    """Of any text, and of each piece with what waits of the one before."""
    waiting = ""
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    for start, end in zip([0, *ends], ends, strict=False):
        waiting += text[start:end]
        assert settled_length(waiting) == settled_by_every_break(waiting)
        waiting = waiting[settled_length(waiting) :]


def test_many_breaks_cost_no_more_than_words() -> None:
    def seconds(text: str) -> float:
        took_s = []
        for _ in range(5):
            began_s = time.process_time()
            settled_length(text)
            took_s.append(time.process_time() - began_s)
        return min(took_s)

    breaks, spaces = "<br>" * 2_500, "<br" + " " * 9_997
    assert seconds(breaks + spaces) < 10 * seconds("a" * 10_000 + spaces)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a good fil", " fil"),
        ("a good film ", " "),
        ("a good film,", ","),
        ("it isn", " isn"),
        ("isn'", "isn'"),
        ("isn\u2019", "isn\u2019"),
        ("snake_case", "snake_case"),
        ("good<br", "<br"),
        ("good <br  /", "<br  /"),
        ("good<br />", "<br />"),
        ("good<br />fil", "<br />fil"),
        ("good<br / fil", " fil"),
        ("and/or", "/or"),
        ("\u597d\u7535\u5f71\uff0c\u597d", "\uff0c\u597d"),
        ("wow!!!", "!"),
        ("", ""),
        ("x", "x"),
    ],
)
def test_no_more_waits_than_may_change(text: str, kept: str) -> None:
    assert text[settled_length(text) :] == kept


def test_white_space_without_end_does_not_pile_up() -> None:
    assert len("a" + " " * 50_000) - settled_length("a" + " " * 50_000) == 1
