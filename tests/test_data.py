"""The prepared data is what training needs: nothing shared between splits, every label there, nothing out of range."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from convoy.core import paths
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.image.items.prepared import read as read_images
from convoy.kinds.text.items.prepared import Split as TextSplit
from convoy.kinds.text.items.prepared import read as read_texts

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def images(copy: Path) -> dict[str, ImageSplit]:
    return {split: read_images(copy / paths.split_file("fashion", split)) for split in paths.SPLITS}


@pytest.fixture(scope="module")
def texts(copy: Path) -> dict[str, TextSplit]:
    return {split: read_texts(copy / paths.split_file("reviews", split)) for split in paths.SPLITS}


def test_no_image_and_no_text_stands_in_two_splits(images: dict[str, ImageSplit], texts: dict[str, TextSplit]) -> None:
    for contents in (
        [image.tobytes() for split in images.values() for image in split.contents],
        [text for split in texts.values() for text in split.contents],
    ):
        assert len(set(contents)) == len(contents)


def test_every_label_is_in_every_split_in_its_share(images: dict[str, ImageSplit], texts: dict[str, TextSplit]) -> None:
    for split in (*images.values(), *texts.values()):
        shares = np.bincount(split.labels, minlength=len(split.names)) / len(split.labels)
        assert shares.min() > 0.6 / len(split.names), shares


def test_images_are_what_the_contract_says(copy: Path, images: dict[str, ImageSplit]) -> None:
    contract = json.loads((copy / paths.prepared("fashion") / paths.CONTRACT).read_text())
    for split in images.values():
        assert split.contents.dtype == np.uint8
        assert split.contents.shape[1:] == (contract["size_px"], contract["size_px"], contract["channels"])
        assert np.median(split.contents[:, 0]) < 30, "Fashion-MNIST is light on dark"


def test_tokens_are_what_the_contract_says(copy: Path, texts: dict[str, TextSplit]) -> None:
    contract = json.loads((copy / paths.prepared("reviews") / paths.CONTRACT).read_text())
    for split in texts.values():
        lengths = [len(tokens) for tokens in split.tokens]
        assert 1 <= min(lengths) <= max(lengths) == contract["max_tokens"]
        ids = np.concatenate(split.tokens)
        assert contract["unknown_id"] <= ids.min() <= ids.max() < split.vocabulary


def test_the_vocabulary_is_that_of_the_training_texts(copy: Path, texts: dict[str, TextSplit]) -> None:
    tokenizer = Tokenizer.from_file(str(copy / paths.prepared("reviews") / "contract" / "tokenizer.json"))

    def words(split: Any) -> set[str]:
        normalised = (tokenizer.normalizer.normalize_str(text) for text in split.contents)
        return {word for text in normalised for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)}

    assert set(tokenizer.get_vocab()) - {"[PAD]", "[UNK]"} <= words(texts["train"])
    assert words(texts["test"]) - words(texts["train"]), "a vocabulary of all splits would know these"


@pytest.mark.parametrize(("data", "raw", "duplicates"), [("fashion", 70_000, 0), ("reviews", 25_000, 96)])
def test_every_item_is_kept_or_its_reason_told(copy: Path, data: str, raw: int, duplicates: int) -> None:
    report = json.loads((copy / paths.data_reports(data) / "data.json").read_text())
    assert report["raw"] == raw
    assert report["dropped"]["duplicate"] == duplicates, "known of this data set"
    assert sum(split["n"] for split in report["splits"].values()) + sum(report["dropped"].values()) == raw
