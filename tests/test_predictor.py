"""A predictor answers each input as if it stood alone, and refuses a bundle that does not reproduce its examples."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import IMAGE_CARD, TEXT_CARD, image_model, png, text_model, tokenizer_json, write_text_bundle

from convoy.bundles.bundle import BundleInvalid, read_bundle, write_bundle
from convoy.bundles.predictor import Model, Predictor

TEXT = Model(TEXT_CARD, {"model.onnx": text_model(), "tokenizer.json": tokenizer_json()})
IMAGE = Model(IMAGE_CARD, {"model.onnx": image_model()})


@given(st.lists(st.lists(st.sampled_from(["good", "bad", "film", "zebra"]), min_size=1, max_size=30), max_size=70))
def test_texts_in_any_batch_get_the_answers_they_get_alone_in_order(texts: list[list[str]]) -> None:
    arrays = [TEXT.prepare(" ".join(words)).array for words in texts]
    together = TEXT.probabilities(arrays)
    assert together.shape == (len(texts), 2)
    for array, row in zip(arrays, together, strict=True):
        assert np.abs(TEXT.probabilities([array])[0] - row).max() <= 1e-6


def test_images_come_back_in_order() -> None:
    arrays = [IMAGE.prepare(png(brightness)).array for brightness in (255, 0, 120, 255)]
    labels = [IMAGE_CARD.labels[row.argmax()] for row in IMAGE.probabilities(arrays)]
    assert labels == ["bright", "dark", "middle", "bright"]


def test_a_predictor_loads_what_was_written(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "text")
    predictor = Predictor(tmp_path / "text")
    assert predictor.digest == read_bundle(tmp_path / "text").digest
    assert predictor.probabilities([predictor.prepare("good film").array])[0].argmax() == 1


def rewrite(folder: Path, **files: bytes) -> None:
    """A bundle whose manifest is in order, with other files in it."""
    bundle = read_bundle(folder)
    content = {name: data for name, data in bundle.files.items() if name != "card.json"}
    write_bundle(folder, bundle.card, content | {name.replace("__", "."): data for name, data in files.items()})


def test_a_bundle_that_does_not_reproduce_its_examples_is_refused(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "text")
    examples = json.loads((tmp_path / "text" / "examples.json").read_text())
    examples[0]["probabilities"] = [0.9, 0.1]
    rewrite(tmp_path / "text", examples__json=json.dumps(examples).encode())
    with pytest.raises(BundleInvalid, match="does not reproduce its own examples"):
        Predictor(tmp_path / "text")


def test_a_bundle_without_examples_proves_nothing_and_is_refused(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "text")
    rewrite(tmp_path / "text", examples__json=b"[]")
    with pytest.raises(BundleInvalid, match="no example"):
        Predictor(tmp_path / "text")


def test_a_graph_with_another_number_of_labels_is_refused() -> None:
    with pytest.raises(BundleInvalid, match="3 probabilities"):
        Model(IMAGE_CARD, {"model.onnx": text_model()})


def test_a_file_that_is_no_graph_is_refused() -> None:
    with pytest.raises(BundleInvalid, match=r"model\.onnx cannot be loaded"):
        Model(IMAGE_CARD, {"model.onnx": b"not a graph"})
