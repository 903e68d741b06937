"""A candidate with an input contract of its own learns from what its bundle makes of the same raw item, to the bit."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import prepared_splits
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode
from PIL import Image
from prepared_splits import IMAGES, TEXTS, tokenizer_json, write_contract

from convoy.core import paths
from convoy.core.params import ParamsInvalid
from convoy.data import raw
from convoy.kinds.image.items import inputs as image_inputs
from convoy.kinds.image.items import prepared as images
from convoy.kinds.image.items.preprocessing import ImagePreprocessing, ImagePreprocessor, Stored, to_input
from convoy.kinds.image.preparing import preparation
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.text.items import inputs as text_inputs
from convoy.kinds.text.items import prepared as texts
from convoy.kinds.text.items.preprocessing import StreamPreprocessing, open_preprocessor
from convoy.sources.items import Item

KEY = "candidates.own.input"
# Sizes and modes of files as users have them: larger, smaller, not square, with colours and with transparency.
FILES = [
    encode(Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8), mode), form)
    for number, (shape, mode, form) in enumerate(
        [
            ((28, 28), "L", "PNG"),
            ((90, 61), "L", "PNG"),
            ((7, 5), "L", "PNG"),
            ((128, 128, 3), "RGB", "PNG"),
            ((300, 200, 3), "RGB", "JPEG"),
            ((40, 80, 4), "RGBA", "PNG"),
            ((96, 96, 3), "RGB", "WEBP"),
        ]
    )
]


def prepare_images(folder: Path, contract: ImagePreprocessing) -> Path:
    """The folder of prepared data as the stage `prepare` leaves it, all files in `train`."""
    items = (Item(f"{number}", "ab"[number % 2], "", content) for number, content in enumerate(FILES))
    raw.write(folder / "raw", "photos", "image", items, None)
    params = preparation.Params(preprocessing=contract)
    made = preparation.Preparation(raw.RawItems(folder / "raw"), params, folder / "prepared")
    labels = np.arange(len(FILES)) % 2
    made.write({"train": np.arange(len(FILES))}, labels, ("a", "b"))
    return folder / "prepared"


def image_contract(size_px: int = 28, channels: int = 1, fit: str = "pad") -> ImagePreprocessing:
    return IMAGES.model_copy(update={"size_px": size_px, "channels": channels, "fit": fit, "polarity": "any"})


SIZES = [  # of the data set, and what differs for a candidate
    ((28, 1), {"size_px": 16}),
    ((28, 3), {"channels": 1}),
    ((28, 1), {"channels": 3}),
    ((64, 3), {"size_px": 20, "channels": 1}),
    ((100, 3), {"size_px": 64}),  # above 64 px they are kept as PNGs
    ((100, 1), {"size_px": 99, "channels": 3}),
    ((100, 3), {}),
    ((65, 1), {"size_px": 4}),
]


@pytest.mark.torch
@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize(("kept", "own"), SIZES, ids=str)
def test_pixels_learnt_from_are_those_that_the_bundle_makes_of_the_file(
    kept: tuple[int, int], own: dict[str, int], fit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convoy.kinds.image.items.dataset import Dataset

    monkeypatch.chdir(tmp_path)  # a scratch file
    folder = prepare_images(tmp_path, image_contract(*kept, fit))
    contract = image_inputs.make(folder, own, KEY)
    dataset = Dataset(folder / "train.arrow", contract)
    preprocessor = ImagePreprocessor(ImagePreprocessing.model_validate(contract.preprocessing.model_dump()))
    size, channels = own.get("size_px", kept[0]), own.get("channels", kept[1])
    assert dataset.arrays.shape == (len(FILES), size, size, channels)
    assert dataset.dimensions == {"size_px": size, "channels": channels}
    for pixels, file in zip(dataset.arrays, FILES, strict=True):
        assert np.array_equal(pixels, preprocessor.prepare(file).array)
    prepared = images.read(folder / "train.arrow").contents
    again = list(map(lambda pixels: to_input(pixels, contract.preprocessing), prepared))
    assert np.array_equal(again, dataset.arrays), "what evaluate makes of a prepared split"
    assert not list(Path(".run/inputs").iterdir()) if Path(".run/inputs").exists() else True


def test_a_contract_of_its_own_keeps_the_form_that_its_data_set_has(tmp_path: Path) -> None:
    write_contract(tmp_path, InputContract(image_contract(64, 3), {}, False))
    contract = image_inputs.make(tmp_path, {"size_px": 32}, KEY)
    assert contract.is_own and contract.preprocessing.stored == Stored(size_px=64, channels=3)
    assert (contract.preprocessing.size_px, contract.preprocessing.channels) == (32, 3)
    assert contract.preprocessing.fit == "pad" and contract.files == {}


@pytest.mark.parametrize("own", [{}, {"size_px": 28}, {"channels": 1}, {"size_px": 28, "channels": 1}], ids=str)
def test_an_image_contract_that_is_equal_is_not_own(own: dict[str, int], tmp_path: Path) -> None:
    write_contract(tmp_path, prepared_splits.CONTRACTS["image"])
    contract = image_inputs.make(tmp_path, own, KEY)
    assert not contract.is_own and contract.preprocessing == IMAGES


def test_a_size_above_the_prepared_one_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_contract(tmp_path, prepared_splits.CONTRACTS["image"])
    match = r"candidates\.own\.input\.size_px is 29, the prepared images have 28: raise prepare\.preprocessing\.size_px"
    with pytest.raises(ParamsInvalid, match=match):
        image_inputs.make(tmp_path, {"size_px": 29}, KEY)


def test_a_data_set_has_no_form_before_its_own() -> None:
    contract = IMAGES.model_copy(update={"stored": Stored(size_px=64, channels=1)})
    with pytest.raises(ValueError, match="`stored` is for the contract of a candidate; remove it"):
        preparation.Params(preprocessing=contract.model_dump())


def image_split(side: int, channels: int, count: int = 5) -> images.Split:
    pixels = np.random.default_rng(side).integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return images.Split(pixels, np.arange(count, dtype=np.int64) % 2, ("a", "b"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [64, 65, 224])
def test_images_above_64_px_are_kept_as_pngs_and_read_the_same(side: int, channels: int, tmp_path: Path) -> None:
    split, path = image_split(side, channels), tmp_path / "train.arrow"
    images.write(path, split)
    found = images.read(path)
    assert isinstance(found.contents, images.EncodedImages) == (side > 64)
    assert (b"\x89PNG" in path.read_bytes()) == (side > 64)
    assert found.contents.shape == split.contents.shape and len(found.contents) == 5
    assert np.array_equal(list(found.contents), split.contents)
    assert np.array_equal(found.contents[3], split.contents[3])
    assert np.array_equal(found.contents[1:4], split.contents[1:4])
    assert np.array_equal(found.contents[np.array([4, 0, 4])], split.contents[[4, 0, 4]])
    assert found.contents[:0].shape == (0, side, side, channels)
    assert np.array_equal(found.labels, split.labels) and found.names == split.names
    images.write(tmp_path / "again.arrow", split)
    assert (tmp_path / "again.arrow").read_bytes() == path.read_bytes()


def test_pngs_are_written_in_blocks_and_an_empty_split_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "BLOCK_IMAGES", 2)
    split = image_split(70, 1, count=5)
    images.write(tmp_path / "blocks.arrow", split)
    assert np.array_equal(images.read(tmp_path / "blocks.arrow").contents[:], split.contents)
    images.write(tmp_path / "none.arrow", image_split(70, 1, count=0))
    assert len(images.read(tmp_path / "none.arrow").contents) == 0


def test_a_png_of_a_split_is_one_that_every_programme_reads(tmp_path: Path) -> None:
    split = image_split(80, 3)
    images.write(tmp_path / "train.arrow", split)
    encoded = images.read(tmp_path / "train.arrow").contents._column[2].as_py()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), split.contents[2])


WRITTEN = ["a good film", "bad bad bad, it's bad", "the " * 40, "An ODD one<br />with caf\u00e9", "\u200b", "x" * 300]


def prepare_texts(folder: Path) -> Path:
    """Prepared texts with the vocabulary of their words."""
    tokenizer = texts.build_tokenizer(WRITTEN, 100).encode()
    contract = InputContract(TEXTS.model_copy(update={"max_tokens": 10}), {"tokenizer.json": tokenizer}, False)
    contract = InputContract(contract.preprocessing.model_copy(update={"head_tokens": 3}), contract.files, False)
    write_contract(folder, contract)
    preprocessor = open_preprocessor(contract.preprocessing, contract.files)
    tokens = [preprocessor.prepare(text).array.astype(np.int32) for text in WRITTEN]
    size = preprocessor.tokenizer.get_vocab_size()
    split = texts.Split(WRITTEN, tokens, np.arange(len(WRITTEN), dtype=np.int64) % 2, ("a", "b"), size, 0)
    texts.write(folder / "train.arrow", [split])
    return folder


OWN_TEXTS = [
    {"max_tokens": 4},
    {"max_tokens": 12, "head_tokens": 0},
    {"max_tokens": None},
    {"vocabulary_size": 100},
    {"vocabulary_size": 100, "max_tokens": None},
    {"max_words": 100, "max_pending_characters": 20},
    {"max_words": 100, "max_pending_characters": 20, "vocabulary_size": 100},
]


def arrays_of(folder: Path, contract: InputContract) -> tuple[list[Any], dict[str, int]]:
    from convoy.kinds.text.items.dataset import Dataset

    dataset = Dataset(folder / "train.arrow", contract)
    return dataset.arrays, dataset.dimensions


def encoded(contract: InputContract, written: Sequence[str] = WRITTEN) -> list[list[int]]:
    """What the preprocessor of the bundle makes, from the card and the files alone."""
    card = type(contract.preprocessing).model_validate_json(contract.preprocessing.model_dump_json())
    preprocessor = open_preprocessor(card, contract.files)
    return [preprocessor.prepare(text).array.tolist() for text in written]


@pytest.mark.torch
@pytest.mark.parametrize("own", [{}, *OWN_TEXTS], ids=str)
def test_token_ids_learnt_from_are_those_that_the_bundle_makes_of_the_text(own: dict[str, Any], tmp_path: Path) -> None:
    folder = prepare_texts(tmp_path)
    contract = text_inputs.make(folder, own, KEY)
    arrays, dimensions = arrays_of(folder, contract)
    assert [array.tolist() for array in arrays] == encoded(contract)
    assert contract.is_own == bool(own)
    assert dimensions["vocabulary"] > max(map(max, arrays)) and dimensions["pad_id"] == 0
    longest = max(map(len, arrays))
    cut = own.get("max_tokens", 10) if "max_words" not in own else None
    assert longest == (40 if cut is None else cut)


def test_a_text_in_pieces_is_never_cut_and_has_its_own_limits(tmp_path: Path) -> None:
    write_contract(tmp_path, prepared_splits.CONTRACTS["text"])
    contract = text_inputs.make(tmp_path, {"max_words": 1000, "max_pending_characters": 64}, KEY)
    assert contract.is_own and contract.preprocessing == StreamPreprocessing(
        kind="text-stream",
        max_characters=TEXTS.max_characters,
        max_pending_characters=64,
        max_words=1000,
        pad_id=TEXTS.pad_id,
        unknown_id=TEXTS.unknown_id,
    )
    assert contract.preprocessing.carries_state and contract.files == {"tokenizer.json": tokenizer_json()}


@pytest.mark.parametrize("own", [{}, {"max_tokens": 100}, {"max_tokens": 100, "head_tokens": 30}], ids=str)
def test_a_text_contract_that_is_equal_is_not_own(own: dict[str, int], tmp_path: Path) -> None:
    write_contract(tmp_path, prepared_splits.CONTRACTS["text"])
    contract = text_inputs.make(tmp_path, own, KEY)
    assert not contract.is_own and contract.preprocessing == TEXTS
    assert contract.files == {"tokenizer.json": tokenizer_json()}


def test_an_own_vocabulary_is_built_from_the_training_split_and_shipped(tmp_path: Path) -> None:
    folder = prepare_texts(tmp_path)
    contract = text_inputs.make(folder, {"vocabulary_size": 200}, KEY)
    assert contract.files["tokenizer.json"] == texts.build_tokenizer(WRITTEN, 200).encode()
    assert paths.CONTRACT.with_name("tokenizer.json").name in contract.files


@pytest.mark.torch
@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "network", "own"),
    [
        ("image", "mlp", {"size_px": 14, "channels": 3}),
        ("text", "ngrams", {"max_tokens": None, "vocabulary_size": 100}),
    ],
)
def test_a_bundle_answers_raw_items_as_its_candidate_answers_prepared_ones(
    kind: str, network: str, own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_training

    from convoy.bundles.predictor import Predictor
    from convoy.kinds.learning import candidates
    from convoy.kinds.registry import module
    from pipelines import choose, evaluate, export, train

    params = tiny_training.entries(kind, network, {"input": own}, epochs=8)
    monkeypatch.chdir(tiny_training.lay_task(tmp_path, params))
    monkeypatch.setenv("CONVOY_FOLLOW", "0")
    task, name = tiny_training.DATA[kind], tiny_training.named(kind, network)
    train.main(name)
    for stage in (choose, export, evaluate):  # each proves the one before
        stage.main(task)
    predictor = Predictor(paths.bundle(task))
    card = predictor.card.preprocessing.model_dump()
    assert {key: card[key] for key in own if key in card} == {key: own[key] for key in own if key in card}
    split = module(kind, "items.prepared").read(paths.split_file(task, "test"))
    sent = module(kind, "items.raw").as_sent(split.contents)
    found = predictor.probabilities([predictor.prepare(item).array for item in sent])
    description, learnt = candidates.load(paths.candidate(task, name))
    assert description.has_own_input and description.contract == card
    contract = candidates.load_contract(paths.winner(task), description)
    data = candidates.open_dataset(kind, paths.split_file(task, "test"), contract)
    expected = candidates.softmax(predictor.card.calibration.logits(candidates.logits(learnt, data)))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.argmax(axis=1) == split.labels).mean() > 0.9


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400))
def test_a_cut_keeps_the_head_and_the_tail(words: int) -> None:
    contract = TEXTS.model_copy(update={"max_tokens": 9, "head_tokens": 4})
    kept = contract.keep(list(range(words)))
    assert kept == (list(range(words)) if words <= 9 else [*range(4), *range(words - 5, words)])
