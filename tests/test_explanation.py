"""What explains an input points at what decides it, adds up, and is in place: in the image, and in the text."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from tiny_bundles import IMAGE_CARD, TEXT_CARD

from convoy.bundles.bundle import EXPLANATION, BundleInvalid, read_bundle, write_bundle
from convoy.bundles.explanation import Explainer, open_explainer
from convoy.bundles.predictor import Model, Predictor
from convoy.kinds.image.explanation import draw_overlay, enlarge, occlude
from convoy.kinds.text.explanation import probabilities_while_reading, strongest_phrases, word_contributions

IMAGE = Model(IMAGE_CARD, {"model.onnx": tiny_bundles.image_model()})
TEXT = Model(TEXT_CARD, {"model.onnx": tiny_bundles.text_model(), "tokenizer.json": tiny_bundles.tokenizer_json()})
IMAGES = Explainer(IMAGE, tiny_bundles.image_explanation())
TEXTS = Explainer(TEXT, tiny_bundles.text_explanation())
FINITE = st.floats(-9, 9, width=32, allow_subnormal=False)


def quadrant(row: int, column: int) -> np.ndarray:
    """An image with one bright quadrant, which alone makes it `bright`."""
    pixels = np.full((28, 28, 1), 120, dtype=np.uint8)
    pixels[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14] = 255
    return pixels


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_quadrant_that_decides_an_image_is_pointed_at_by_both_methods(row: int, column: int) -> None:
    pixels = quadrant(row, column)
    contributions = IMAGES.explain(pixels).contributions[2]
    _, falls = occlude(IMAGE.probabilities, IMAGE_CARD.explanation, pixels)
    for found in (contributions, falls[2]):
        middles = enlarge(found, 2)
        assert np.unravel_index(middles.argmax(), (2, 2)) == (row, column)


def test_an_explanation_says_the_same_as_the_prediction_and_adds_up_to_it() -> None:
    for explainer, array in (
        (IMAGES, quadrant(0, 1)),
        (TEXTS, TEXT.prepare("the good film was bad good").array),
    ):
        explained = explainer.explain(array)
        logits = explained.contributions.sum(axis=(1, 2)) + explained.bias
        assert np.exp(logits) / np.exp(logits).sum() == pytest.approx(explained.probabilities, abs=1e-6)
        assert explained.probabilities == pytest.approx(explainer.model.probabilities([array])[0], abs=1e-5)


def test_nothing_falls_where_what_is_covered_has_the_neutral_colour_already() -> None:
    pixels = np.full((28, 28, 1), 100, dtype=np.uint8)
    probabilities, falls = occlude(IMAGE.probabilities, IMAGE_CARD.explanation, pixels)
    assert falls.shape == (3, 4, 4) and not falls.any()
    assert probabilities == pytest.approx(IMAGE.probabilities([pixels])[0])


@pytest.mark.process
@given(size=st.sampled_from([4, 28, 100, 224, 300]), channels=st.sampled_from([1, 3]), places=st.integers(1, 9))
def test_an_overlay_is_a_picture_of_bounded_size_in_the_colours_of_its_map(
    size: int, channels: int, places: int
) -> None:
    pixels = np.full((size, size, channels), 128, dtype=np.uint8)
    found = np.zeros((places, places), dtype=np.float32)
    found[0, 0] = 1
    with Image.open(io.BytesIO(draw_overlay(pixels, found))) as picture:
        assert picture.width == picture.height and 150 <= picture.width <= 224
        shown = np.asarray(picture).astype(int)
    red, _, blue = shown[0, 0]
    assert red > 128 > blue  # orange: it speaks for the label
    if places > 3:
        assert set(shown[-1, -1]) == {128}
    with Image.open(io.BytesIO(draw_overlay(pixels, -found))) as picture:
        assert picture.getpixel((0, 0))[2] > 128  # blue: against it


def test_a_map_of_nothing_leaves_the_image_as_it_is() -> None:
    pixels = quadrant(0, 0)
    with Image.open(io.BytesIO(draw_overlay(pixels, np.zeros((7, 7), dtype=np.float32)))) as picture:
        assert np.array_equal(np.asarray(picture)[::8, ::8, 0], pixels[..., 0])


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=FINITE))
def test_words_have_together_what_their_phrases_have(found: np.ndarray) -> None:
    widths = (1, 2, 5)[: len(found)]
    by_word = word_contributions(found, widths)
    assert by_word.shape == found.shape[1:]
    assert by_word.sum() == pytest.approx(found.sum(dtype=np.float64), abs=1e-4)
    every = strongest_phrases(found, widths, 1000)
    if len(found) > 1:
        assert sum(phrase.contribution for phrase in every) == pytest.approx(found.sum(dtype=np.float64), abs=1e-4)
    assert [abs(phrase.contribution) for phrase in every] == sorted(
        (abs(phrase.contribution) for phrase in every), reverse=True
    )


def test_a_phrase_belongs_to_all_of_its_words_and_ends_with_the_text() -> None:
    found = np.array([[0, 0, 0, 0], [0, 6, 0, 4]], dtype=np.float32)
    assert word_contributions(found, (1, 3)).tolist() == [0, 2, 2, 6]
    assert strongest_phrases(found, (1, 3), 9) == [(1, 4, 6.0), (3, 4, 4.0)]
    assert strongest_phrases(found[:1], (1,), 9) == []


def test_the_word_that_decides_a_text_adds_most_and_turns_the_probability() -> None:
    tokens = TEXT.prepare("the film the film good the film").array
    explained = TEXTS.explain(tokens)
    assert explained.contributions[1].sum(axis=0).argmax() == 4
    places, rows = probabilities_while_reading(TEXT.probabilities, tokens, 100)
    assert places.tolist() == list(range(7))
    assert np.diff(rows[:, 1]).argmax() == 3  # from the word before it to it
    assert rows[-1] == pytest.approx(TEXT.probabilities([tokens])[0])


@given(words=st.integers(1, 400), most=st.integers(2, 50))
def test_no_more_beginnings_are_read_than_allowed_and_the_whole_is_among_them(words: int, most: int) -> None:
    read: list[int] = []

    def probabilities(each: Sequence[np.ndarray]) -> np.ndarray:
        read.extend(map(len, each))
        return np.zeros((len(each), 2), dtype=np.float32)

    places, _ = probabilities_while_reading(probabilities, np.arange(words), most)
    assert len(read) == min(words, most) and read == sorted(read) and max(read) == words
    assert (places + 1).tolist() == read
    assert words > most or read == list(range(1, words + 1))


def test_a_bundle_explains_what_it_predicts_and_one_without_a_graph_for_it_nothing(tmp_path: Path) -> None:
    tiny_bundles.write_image_bundle(tmp_path / "image")
    explainer = open_explainer(Predictor(tmp_path / "image"))
    assert explainer is not None and explainer.explain(quadrant(0, 0)).contributions.shape == (3, 7, 7)
    bundle = read_bundle(tmp_path / "image")
    rest = {name: content for name, content in bundle.files.items() if name not in ("card.json", EXPLANATION)}
    write_bundle(tmp_path / "without", bundle.card, rest)
    assert open_explainer(Predictor(tmp_path / "without")) is None
    old = Path(__file__).parent / "old_bundles" / "format-2-image"
    assert open_explainer(Predictor(old)) is None


def test_a_graph_that_does_not_explain_or_has_changed_since_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match=r"explanation\.onnx has outputs \['probabilities'\]"):
        Explainer(IMAGE, tiny_bundles.image_model())
    with pytest.raises(BundleInvalid, match=r"explanation\.onnx cannot be loaded"):
        Explainer(IMAGE, b"not a graph")
    tiny_bundles.write_image_bundle(tmp_path / "image")
    predictor = Predictor(tmp_path / "image")
    tiny_bundles.write_image_bundle(tmp_path / "image", shift=3)
    with pytest.raises(BundleInvalid, match="another bundle"):
        open_explainer(predictor)
    predictor = Predictor(tmp_path / "image")
    (tmp_path / "image" / EXPLANATION).write_bytes(b"half")
    with pytest.raises(BundleInvalid, match=r"explanation\.onnx"):
        open_explainer(predictor)


def test_what_is_no_number_is_an_error_and_no_explanation() -> None:
    class Broken(Explainer):
        def run(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            contributions, logits = super().run(batch)
            return contributions * np.nan, logits

    with pytest.raises(ValueError, match="no number"):
        Broken(IMAGE, tiny_bundles.image_explanation()).explain(quadrant(0, 0))
