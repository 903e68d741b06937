"""Texts become the token ids that the model was trained on, or a clear refusal."""

import sys
import time
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from convoy.core.rejection import InputRejected
from convoy.kinds.text.items.preprocessing import LONGEST_NFKC, TextPreprocessing, TextPreprocessor, check
from convoy.kinds.text.preparing.preparation import build_tokenizer

TEXTS = ["The film isn't good.<br /><br />Not at ALL!", "a good film, a very good one", "bad"]
TOKENIZER = build_tokenizer(TEXTS, 100)
CONTRACT = TextPreprocessing(kind="text", max_tokens=6, head_tokens=2, max_characters=1000, pad_id=0, unknown_id=1)
PREPROCESSOR = TextPreprocessor(CONTRACT, TOKENIZER.encode())


def words(text: str) -> list[str]:
    return Tokenizer.from_str(TOKENIZER).encode(text).tokens


def test_words_keep_their_apostrophe_and_html_breaks_vanish() -> None:
    assert words("The FILM isn't good.<br /><br/>Not") == ["the", "film", "isn't", "good", ".", "not"]


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert build_tokenizer(TEXTS, 100) == TOKENIZER


def test_padding_and_unknown_have_the_first_ids_and_the_size_is_kept() -> None:
    tokenizer = Tokenizer.from_str(build_tokenizer(TEXTS, 8))
    assert tokenizer.get_vocab_size() == 8
    assert (tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[UNK]")) == (0, 1)
    assert tokenizer.token_to_id("good") == 2  # the most frequent word


def test_a_text_cannot_smuggle_padding_in() -> None:
    assert 0 not in PREPROCESSOR.prepare("good [PAD] film").array


def test_a_long_text_keeps_its_head_and_its_tail_and_says_so() -> None:
    whole = PREPROCESSOR.prepare("a good film , a very")
    assert not whole.truncated
    cut = PREPROCESSOR.prepare("a good bad bad bad film , a very")
    assert cut.truncated
    assert list(cut.array) == [*whole.array[:2], *whole.array[2:]]


@given(
    st.text(min_size=1, max_size=400).filter(
        lambda text: text.strip() and not any("\ud800" <= c <= "\udfff" for c in text)
    )
)
def test_every_text_has_between_one_and_max_tokens_and_no_padding(text: str) -> None:
    array = PREPROCESSOR.prepare(text).array
    assert 1 <= len(array) <= CONTRACT.max_tokens
    assert array.min() >= 1


@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8))
def test_many_at_once_are_the_same_as_one_by_one(texts: list[str]) -> None:
    for one, all_at_once in zip(map(PREPROCESSOR.prepare, texts), PREPROCESSOR.prepare_all(texts), strict=True):
        assert np.array_equal(one.array, all_at_once.array)
        assert one.truncated == all_at_once.truncated


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "blank_text"), (" \n\t\u00a0", "blank_text"), ("x" * 1001, "text_too_long"), ("a \ud83d b", "invalid_text")],
)
def test_a_text_that_cannot_be_used_is_refused(text: str, code: str) -> None:
    with pytest.raises(InputRejected) as error:
        PREPROCESSOR.prepare(text)
    assert error.value.code == code


@pytest.mark.parametrize("text", ["\ufdfa" * 56, "\u2026" * 334, "x" * 990 + "\ufb03" * 4])
def test_a_text_is_bounded_after_normalization(text: str) -> None:
    """56 characters are 224 words of 1,008."""
    for read in (PREPROCESSOR.prepare, PREPROCESSOR.locate, lambda each: PREPROCESSOR.prepare_all([each])):
        with pytest.raises(InputRejected, match="after Unicode's NFKC, at most 1000") as error:
            read(text)
        assert error.value.code == "text_too_long"


@pytest.mark.parametrize("text", ["\ufdfa" * 55, "\u2026" * 333, "\u00e9" * 1000, "e\u0301" * 500, "\ud55c" * 1000])
def test_a_text_of_ordinary_characters_keeps_its_bound(text: str) -> None:
    assert len(PREPROCESSOR.prepare(text).array)


def test_no_character_becomes_more_than_eighteen() -> None:
    assert max(len(unicodedata.normalize("NFKC", chr(code))) for code in range(sys.maxunicode + 1)) == LONGEST_NFKC


def test_accents_out_of_order_cost_no_quadratic_time() -> None:
    contract = CONTRACT.model_copy(update={"max_characters": 30_000})
    began_s = time.process_time()
    check("a" + "\u0301" * 15_000 + "\u0323" * 14_999, contract)
    assert time.process_time() - began_s < 0.2  # Python's normalize takes seconds


def test_a_head_longer_than_the_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="head_tokens is 9, must not exceed max_tokens"):
        TextPreprocessing(kind="text", max_tokens=6, head_tokens=9, max_characters=9, pad_id=0, unknown_id=1)


@given(
    st.lists(st.sampled_from([*"aäÉİ,. \n", "<br />", "film", "isn't", "GOOD", "👍🏽", "ﬁ", "e\u0301"]), min_size=1)
    .map("".join)
    .filter(str.strip)
)
def test_words_are_located_where_they_stand_and_are_those_that_the_model_reads(text: str) -> None:
    located, prepared = PREPROCESSOR.locate(text), PREPROCESSOR.prepare(text)
    assert np.array_equal(located.prepared.array, prepared.array)
    assert len(located.spans) == len(prepared.array) and (located.omitted > 0) == prepared.truncated
    for (start, end), (later, _) in pairwise([*located.spans, (len(text), 0)]):
        assert 0 <= start < end <= later or (start, end) == (0, len(text))


def test_a_word_is_located_beside_line_breaks_and_what_is_written_otherwise() -> None:
    text = "A GOOD<br /><br />Film, isn't it"
    assert [text[start:end] for start, end in PREPROCESSOR.locate(text).spans] == [
        "A",
        "GOOD",
        "Film",
        ",",
        "isn't",
        "it",
    ]
    located = PREPROCESSOR.locate(f"{text}: a very good one")
    assert located.omitted == 5 and located.spans[2][0] > located.spans[1][1] + 20
    assert PREPROCESSOR.locate("\u200b").spans == [(0, 1)]
