"""A text in pieces has the words and the probabilities of the same text at once, and an end is put to what has none."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import STREAM_CARD, TEXT_CARD, stream_model, stream_tokenizer_json, text_model, write_stream_bundle

from convoy.bundles.bundle import BundleInvalid
from convoy.bundles.predictor import Model, Predictor
from convoy.bundles.streaming import Reading, StreamState, begin, read
from convoy.core.rejection import InputRejected

FILES = {"model.onnx": stream_model(), "tokenizer.json": stream_tokenizer_json()}
MODEL = Model(STREAM_CARD, FILES)
WORDS = st.sampled_from(
    ["good", "bad", "film", "the", "Good", "isn't", "<br />", "\u00e9", "e\u0301", "\r\n", "...", "\U0001f3ac"]
)
texts = st.lists(st.one_of(WORDS, st.text(max_size=6)), max_size=40).map(" ".join)


def read_pieces(model: Model, pieces: Sequence[str]) -> tuple[list[Reading], StreamState]:
    state, readings = begin(model), []
    for index, piece in enumerate(pieces):
        readings.append(read(model, state, piece, final=index == len(pieces) - 1))
        state = readings[-1].state
    return readings, state


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@settings(deadline=None)
@given(texts, st.lists(st.integers(0, 250), max_size=20))
def test_any_division_gives_the_answer_of_the_whole(text: str, places: list[int]) -> None:
    whole = read(MODEL, begin(MODEL), text, final=True)
    readings, state = read_pieces(MODEL, cut(text, places))
    assert [word for reading in readings for word in reading.words] == whole.words
    found = np.concatenate([reading.probabilities for reading in readings])
    np.testing.assert_allclose(found, whole.probabilities, atol=1e-5)
    np.testing.assert_allclose(state.latest, whole.state.latest, atol=1e-5)
    assert (state.words, state.pending) == (len(whole.words), "")


@settings(deadline=None)
@given(texts.filter(lambda text: bool(text.strip())))
def test_the_last_word_has_what_the_predictor_says_of_the_text(text: str) -> None:
    reading = read(MODEL, begin(MODEL), text, final=True)
    if reading.words:
        expected = MODEL.probabilities([MODEL.prepare(text).array])[0]
        np.testing.assert_allclose(reading.state.latest, expected, atol=1e-5)


def test_each_word_has_what_the_predictor_says_of_the_text_up_to_it() -> None:
    words = ["good", "bad", "film", "the", "bad", "bad"]
    reading = read(MODEL, begin(MODEL), " ".join(words), final=True)
    arrays = [MODEL.prepare(" ".join(words[: end + 1])).array for end in range(len(words))]
    np.testing.assert_allclose(reading.probabilities, MODEL.probabilities(arrays), atol=1e-6)


@pytest.mark.torch
def test_the_same_pieces_are_proven_by_the_export() -> None:
    from convoy.evaluation.parity import compare_pieces

    agreement = compare_pieces(MODEL, ["the good film isn't bad<br /><br />at all", "bad " * 300])
    assert agreement.max_difference <= 1e-5 and agreement.class_flips == 0 and agreement.n > 300


def test_a_piece_without_a_word_keeps_the_state_and_what_was_said() -> None:
    first = read(MODEL, begin(MODEL), "good film ")
    second = read(MODEL, first.state, "  \n ")
    assert second.words == [] and second.probabilities.shape == (0, 2)
    np.testing.assert_array_equal(second.state.latest, first.state.latest)
    assert read(MODEL, begin(MODEL), "", final=True).state.latest.shape == (0,)


def test_after_final_a_new_word_begins() -> None:
    state = read(MODEL, begin(MODEL), "the goo", final=True).state
    assert read(MODEL, state, "d", final=True).words == ["d"]


def test_a_word_without_end_is_refused_and_the_state_stays_good() -> None:
    state = read(MODEL, begin(MODEL), "good " + "a" * 90).state
    with pytest.raises(InputRejected) as refused:
        read(MODEL, state, "a" * 20)
    assert refused.value.code == "word_too_long"
    assert read(MODEL, state, "a", final=True).words == ["a" * 91]


def test_a_stream_without_end_is_refused() -> None:
    contract = STREAM_CARD.preprocessing.model_copy(update={"max_words": 5_000})
    model = Model(STREAM_CARD.model_copy(update={"preprocessing": contract}), FILES)
    state = begin(model)
    for _ in range(2):
        state = read(model, state, "good " * 2_400).state
    with pytest.raises(InputRejected) as refused:
        read(model, state, "good " * 300)
    assert refused.value.code == "stream_too_long"
    assert read(model, state, "good " * 200).state.words == 5_000


@pytest.mark.parametrize(
    ("piece", "code"),
    [("\ud83d", "invalid_text"), ("a " * 10_001, "text_too_long"), ("\ufdfa " * 1_100, "text_too_long")],
)
def test_what_is_no_text_or_too_long_is_refused(piece: str, code: str) -> None:
    with pytest.raises(InputRejected) as refused:
        read(MODEL, begin(MODEL), piece)
    assert refused.value.code == code


def test_a_model_without_a_state_is_no_stream() -> None:
    with pytest.raises(BundleInvalid, match="one of the state"):
        Model(STREAM_CARD, {**FILES, "model.onnx": text_model()})


def test_a_stream_model_is_no_text_model() -> None:
    with pytest.raises(BundleInvalid, match="outputs"):
        Model(TEXT_CARD, FILES)


def test_a_bundle_of_a_stream_model_reproduces_its_examples(tmp_path: Path) -> None:
    write_stream_bundle(tmp_path / "bundle")
    predictor = Predictor(tmp_path / "bundle")
    assert predictor.state_size == 2 and predictor.card.task == "reviews-stream"


def test_a_padded_batch_has_the_answers_of_each_text_alone() -> None:
    arrays = [MODEL.prepare(text).array for text in ("good", "bad " * 200, "the film " * 70)]
    alone = np.concatenate([MODEL.run(MODEL.preprocessor.collate([array])) for array in arrays])
    np.testing.assert_allclose(MODEL.probabilities(arrays), alone, atol=1e-6)


def test_a_word_costs_the_same_however_many_came_before() -> None:
    """Of single words: the tenth and the thousandth, the quickest of many."""
    early = read(MODEL, begin(MODEL), "good " * 10).state
    late = read(MODEL, begin(MODEL), "good " * 1_000).state
    times = {"early": [0.0], "late": [0.0]}
    for _ in range(200):
        for name, state in (("early", early), ("late", late)):
            began = time.perf_counter()
            read(MODEL, state, "bad film ")
            times[name].append(time.perf_counter() - began)
    quick = {name: float(np.quantile(each[1:], 0.25)) for name, each in times.items()}
    assert quick["late"] < 1.5 * quick["early"]
