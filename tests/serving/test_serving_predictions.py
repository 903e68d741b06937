"""The prediction functions, called directly: checked inputs -> JSON."""

import io
import json
import zlib
from typing import Any

import image_files
import numpy as np
import pytest
import tiny_bundles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from serving.answers import answer_sets
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.kinds.image import MOST_QUICK_CHUNKS, is_quick
from serving.kinds.image import predict as predict_images
from serving.kinds.text import predict as predict_texts
from serving.kinds.text import read_texts

WORDS = st.lists(st.sampled_from(["good", "bad", "film", "the", "unknown"]), min_size=1, max_size=40).map(" ".join)
SHARED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def predictions(answer: bytes) -> list[dict[str, Any]]:
    predicted: list[dict[str, Any]] = json.loads(answer)["predictions"]
    return predicted


def close(first: dict[str, Any], second: dict[str, Any]) -> bool:
    same = {key: value for key, value in first.items() if key not in ("probability", "probabilities")}
    return all(second[key] == value for key, value in same.items()) and np.allclose(
        list(first["probabilities"].values()), list(second["probabilities"].values()), atol=1e-6
    )


@SHARED
@given(texts=st.lists(WORDS, min_size=1, max_size=8))
def test_a_batch_of_texts_is_answered_as_each_text_alone(text_model: Deployed, texts: list[str]) -> None:
    together = predictions(predict_texts(text_model, texts))
    alone = [predictions(predict_texts(text_model, [text]))[0] for text in texts]
    assert all(map(close, alone, together)) and len(together) == len(texts)


@SHARED
@given(brightness=st.lists(st.integers(0, 255), min_size=1, max_size=8))
def test_a_batch_of_images_is_answered_as_each_image_alone(image_model: Deployed, brightness: list[int]) -> None:
    images = [tiny_bundles.png(value) for value in brightness]
    together = predictions(predict_images(image_model, images, None))
    alone = [predictions(predict_images(image_model, [image], None))[0] for image in images]
    assert all(map(close, alone, together)) and len(together) == len(images)


def test_an_answer_names_the_release_and_holds_finite_probabilities_that_sum_to_one(image_model: Deployed) -> None:
    answer = json.loads(predict_images(image_model, [tiny_bundles.png(255)], None))
    assert answer["model"] == {
        "name": "convoy-fashion",
        "version": "7",
        "run_id": "0123456789abcdef",
        "digest": image_model.predictor.digest,
    }
    (prediction,) = answer["predictions"]
    assert tuple(prediction["probabilities"]) == tiny_bundles.IMAGE_LABELS
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert prediction["probability"] == max(prediction["probabilities"].values())
    assert prediction["probabilities"][prediction["label"]] == prediction["probability"]


def test_only_a_text_that_was_cut_says_so(text_model: Deployed) -> None:
    short, long = predictions(predict_texts(text_model, ["good film", "good " * 17]))
    assert "truncated" not in short and long["truncated"] is True


def test_an_image_of_the_other_polarity_warns_and_the_parameter_inverts_it(image_model: Deployed) -> None:
    dark_on_light = _inverted(tiny_bundles.png(255))
    (plain,) = predictions(predict_images(image_model, [dark_on_light], None))
    (inverted,) = predictions(predict_images(image_model, [dark_on_light], "dark_on_light"))
    (original,) = predictions(predict_images(image_model, [tiny_bundles.png(255)], None))
    assert "dark_on_light" in plain["warnings"][0]
    assert inverted == original and "warnings" not in inverted
    assert "warnings" not in original
    (wrong,) = predictions(predict_images(image_model, [tiny_bundles.png(255)], "dark_on_light"))
    assert wrong["warnings"] == ["the image looked light_on_dark before ?polarity=dark_on_light inverted it"]


def _inverted(png: bytes) -> bytes:
    return image_files.encode(ImageOps.invert(Image.open(io.BytesIO(png))))


def test_one_bad_input_refuses_the_batch_and_is_named(image_model: Deployed, text_model: Deployed) -> None:
    good = tiny_bundles.png(9)
    with pytest.raises(RequestError, match=r"^image\[1\]: ") as caught:
        predict_images(image_model, [good, b"GIF89a", good], None)
    assert (caught.value.code, caught.value.status) == ("undecodable_image", 422)
    with pytest.raises(RequestError, match=r"^texts\[2\]: ") as caught:
        predict_texts(text_model, ["good", "bad", " \n "])
    assert (caught.value.code, caught.value.status) == ("blank_text", 422)


def test_the_pixels_of_a_request_are_counted_together_before_any_image_is_decoded(
    image_model: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = tiny_bundles.png(200, (4000, 4000))
    assert len(predictions(predict_images(image_model, [largest], None))) == 1
    half = tiny_bundles.png(200, (4000, 2000))
    assert len(predictions(predict_images(image_model, [half, half], None))) == 2
    monkeypatch.setattr(image_model.predictor, "prepare", lambda *_, **__: pytest.fail("an image was decoded"))
    with pytest.raises(RequestError, match=r"3 images have 16000784 pixels together, at most 16000000 ") as caught:
        predict_images(image_model, [half, tiny_bundles.png(1), half], None)
    assert (caught.value.code, caught.value.status) == ("image_too_large", 413)
    with pytest.raises(RequestError, match=r"^image\[1\]: ") as caught:
        predict_images(image_model, [largest, b"GIF89a", largest], None)
    assert caught.value.code == "undecodable_image"


def test_a_model_that_answers_nan_is_an_error_of_ours_and_never_invalid_json(
    image_model: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_model.predictor, "probabilities", lambda arrays: np.full((len(arrays), 3), np.nan))
    with pytest.raises(ValueError, match="no number"):
        predict_images(image_model, [tiny_bundles.png(1)], None)
    with pytest.raises(ValueError, match="no number"):
        predict_images(image_model, [tiny_bundles.png(1)], None, answer=answer_sets)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.999, [1, 1]), ((0.0, 0.999), [1, 2]), ((0.0, 0.0), [2, 2])],
)
def test_a_set_always_holds_the_predicted_label(
    text_model: Deployed, monkeypatch: pytest.MonkeyPatch, threshold: float | tuple[float, ...], expected: list[int]
) -> None:
    card = text_model.predictor.card
    changed = card.model_copy(update={"sets": card.sets.model_copy(update={"threshold": threshold})})
    monkeypatch.setattr(text_model.predictor, "card", changed)
    texts = ["bad", "good " * 9]
    sets = predictions(predict_texts(text_model, texts, answer_sets))
    assert [answer["labels"][0] for answer in sets] == [
        answer["label"] for answer in predictions(predict_texts(text_model, texts))
    ]
    assert [len(answer["labels"]) for answer in sets] == expected


def test_only_a_small_png_is_answered_without_a_thread() -> None:
    assert is_quick(tiny_bundles.png(7))
    assert not is_quick(tiny_bundles.png(7, (300, 300)))
    assert not is_quick(tiny_bundles.png(7)[:20])
    assert not is_quick(b"\xff\xd8\xff" + bytes(100))
    assert not is_quick(tiny_bundles.png(7) + bytes(70_000))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"acTL", b"fdAT", b"teSt", b"IHDR"])
def test_a_png_with_more_than_pixels_takes_a_thread(name: bytes) -> None:
    png, chunk = tiny_bundles.png(7), image_files.chunk(name, b"a\0\0")
    assert not is_quick(png[:33] + chunk + png[33:])
    assert not is_quick(png[:-12] + chunk + png[-12:])  # before its last chunk, which has no data


@pytest.mark.parametrize("name", [b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"IDAT"])
def test_a_png_of_few_chunks_with_pixels_takes_none(name: bytes) -> None:
    png, chunk = tiny_bundles.png(7), image_files.chunk(name, bytes(32))
    assert is_quick(png[:33] + chunk + png[33:])
    assert not is_quick(png[:33] + chunk * MOST_QUICK_CHUNKS + png[33:])


@pytest.mark.parametrize("cut", [12, 20, 60])
def test_a_png_without_its_end_takes_a_thread(cut: int) -> None:
    assert not is_quick(tiny_bundles.png(7)[:-cut])


def test_texts_in_a_png_change_no_answer(image_model: Deployed) -> None:
    png, chunk = tiny_bundles.png(7), image_files.chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))
    assert predict_images(image_model, [png[:33] + chunk * 60 + png[33:]], None) == predict_images(
        image_model, [png], None
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b'{"texts": ["a"]} x', "malformed_json"),
        (b'{"texts": ["a",]}', "malformed_json"),
        (b'{"texts": [NaN]}', "malformed_json"),
        (b'{"texts": [-Infinity]}', "malformed_json"),
        (b'{"texts": ["a"], "texts": ["b"]}', "malformed_json"),
        (b'{"texts": [{"a": 1, "a": 2}]}', "malformed_json"),
        (b'{"texts": [' + b"9" * 5000 + b"]}", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'{"texts": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed_json"),
        (b'\xef\xbb\xbf{"texts": ["a"]}', "malformed_json"),
        ('{"texts": ["ä"]}'.encode("latin-1"), "malformed_json"),
        ('{"texts": ["a"]}'.encode("utf-16"), "malformed_json"),
        (b'{"texts": ["a\x00b"]}', "malformed_json"),
        (b'{"texts": ["a\nb"]}', "malformed_json"),
        (b"null", "invalid_request"),
        (b"[]", "invalid_request"),
        (b'"texts"', "invalid_request"),
        (b"{}", "invalid_request"),
        (b'{"texts": []}', "invalid_request"),
        (b'{"texts": "good"}', "invalid_request"),
        (b'{"texts": null}', "invalid_request"),
        (b'{"texts": [1]}', "invalid_request"),
        (b'{"texts": [1e999]}', "invalid_request"),
        (b'{"texts": ["good", ["bad"]]}', "invalid_request"),
        (b'{"texts": ["good"], "model": "other"}', "invalid_request"),
        (b'{"Texts": ["good"]}', "invalid_request"),
        (b'{"texts": ["a","a","a","a","a","a","a","a","a"]}', "too_many_items"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else value,
)
def test_a_json_body_that_is_not_a_request_is_refused_without_being_repeated(body: bytes, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_texts(body, max_items=8)
    assert caught.value.code == code
    assert len(caught.value.message) < 120 and "pydantic" not in caught.value.message


def test_the_message_of_a_wrong_type_names_the_index() -> None:
    with pytest.raises(RequestError, match=r"texts\[1\]: "):
        read_texts(b'{"texts": ["good", 2]}', max_items=8)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_refused(text_model: Deployed, text: str) -> None:
    texts = read_texts(json.dumps({"texts": ["good", text]}).encode(), max_items=8)
    with pytest.raises(RequestError, match=r"texts\[1\]") as caught:
        predict_texts(text_model, texts)
    assert caught.value.code == "invalid_text"


@pytest.mark.parametrize("text", ["a", "\U0001f468‍\U0001f469", "مرحبا", "e" + "́" * 10_000, "zzz " * 4000, "<b>\x00"])
def test_any_real_text_gets_an_answer(text_model: Deployed, text: str) -> None:
    (prediction,) = predictions(predict_texts(text_model, [text]))
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-6)
