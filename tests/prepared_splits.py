"""Small prepared splits with something to learn, and their contracts, for tests of datasets, models and training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from convoy.core import paths
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.image.items.prepared import write as write_images
from convoy.kinds.image.items.preprocessing import ImagePreprocessing
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.text.items.prepared import Split as TextSplit
from convoy.kinds.text.items.prepared import write as write_texts
from convoy.kinds.text.items.preprocessing import TextPreprocessing

VOCABULARY = 50
IMAGES = ImagePreprocessing(
    kind="image", size_px=28, channels=1, fit="pad", polarity="light_on_dark", max_pixels=1_000_000
)
TEXTS = TextPreprocessing(kind="text", max_tokens=100, head_tokens=30, max_characters=20_000, pad_id=0, unknown_id=1)


def tokenizer_json() -> bytes:
    """Each word of `text_split` is the number of its token."""
    words = {"[PAD]": 0, "[UNK]": 1} | {str(number): number for number in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(tokenizer.to_str()).encode()


CONTRACTS = {  # of the prepared splits, by their kind
    "image": InputContract(IMAGES, {}, False),
    "text": InputContract(TEXTS, {"tokenizer.json": tokenizer_json()}, False),
}


def image_split(count: int = 90, size_px: int = 28) -> ImageSplit:
    """A bright bar on a dark ground, its place in three steps from top to bottom is the label."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = generator.integers(0, 60, (count, size_px, size_px, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top = size_px // 8 + label * size_px // 3
        image[top : top + 4, 4:-4] = 220
    return ImageSplit(images, labels.astype(np.int64), ("top", "middle", "bottom"))


def text_split(count: int = 90) -> TextSplit:
    """Token 2 somewhere makes a text positive, token 3 negative."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    tokens = [generator.integers(4, VOCABULARY, generator.integers(3, 40)).astype(np.int32) for _ in labels]
    for ids, label in zip(tokens, labels, strict=True):
        ids[generator.integers(len(ids))] = 3 - label
    texts = [" ".join(map(str, ids)) for ids in tokens]
    return TextSplit(texts, tokens, labels.astype(np.int64), ("negative", "positive"), VOCABULARY, 0)


def write_split(kind: str, path: Path, count: int = 90) -> Path:
    if kind == "image":
        write_images(path, image_split(count))
    else:
        write_texts(path, [text_split(count)])
    return path


def write_contract(folder: Path, contract: InputContract) -> None:
    """The contract of a data set, as its stage `prepare` leaves it in this folder."""
    file = folder / paths.CONTRACT
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(contract.preprocessing.model_dump_json())
    for name, content in contract.files.items():
        file.with_name(name).write_bytes(content)


def write_prepared(folder: Path, kind: str, counts: Mapping[str, int]) -> Path:
    """A folder of prepared data: the contract, and so many items of each split."""
    write_contract(folder, CONTRACTS[kind])
    for split, count in counts.items():
        write_split(kind, folder / f"{split}.arrow", count)
    return folder
