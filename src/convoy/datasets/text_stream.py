"""Prepared texts -> padded batches of whole texts, nothing cut off, as a model reads them that takes them in pieces."""

from itertools import islice
from pathlib import Path

import numpy as np

from convoy.datasets.text import BatchParams, TextDataset
from convoy.prepared.text import read_texts
from convoy.preprocessing.text import StreamPreprocessing, TextPreprocessing, TextPreprocessor

__all__ = ["BatchParams", "TextStreamDataset"]

AT_ONCE = 250  # texts encoded at once; the tokenizer takes up to 90 kB for each while it does


class TextStreamDataset(TextDataset):
    """One split whose token ids are made anew from its texts: those of the file are cut to what `text` reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        preprocessor = _whole_texts(path.parent / "contract")
        texts = iter(read_texts(path).texts)
        self.arrays = []
        while part := list(islice(texts, AT_ONCE)):
            self.arrays += [prepared.array.astype(np.int32) for prepared in preprocessor.prepare_all(part)]
        self.lengths = np.array([len(tokens) for tokens in self.arrays])
        self.evaluation_order = np.argsort(self.lengths, kind="stable")


def _whole_texts(folder: Path) -> TextPreprocessor:
    """The tokenizer that the texts were prepared with, for texts of any length that the contract lets in."""
    contract = TextPreprocessing.model_validate_json((folder / "preprocessing.json").read_bytes())
    whole = StreamPreprocessing(
        kind="text-stream",
        max_characters=contract.max_characters,
        max_pending_characters=contract.max_characters,
        max_words=contract.max_characters,
        pad_id=contract.pad_id,
        unknown_id=contract.unknown_id,
    )
    return TextPreprocessor(whole, (folder / "tokenizer.json").read_bytes())
