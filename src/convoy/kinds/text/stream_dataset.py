"""Prepared texts -> padded batches of whole texts, nothing cut off, as a model reads them that takes them in pieces."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from convoy.kinds.evaluation_batches import EvaluationBatches
from convoy.kinds.text.dataset import BatchParams, TextDataset
from convoy.kinds.text.prepared import read_texts
from convoy.kinds.text.preprocessing import StreamPreprocessing, TextPreprocessing, TextPreprocessor

__all__ = ["BatchParams", "TextStreamDataset"]

AT_ONCE = 250  # texts encoded at once; the tokenizer takes up to 90 kB for each while it does
EVALUATED_AT_ONCE = 64  # of 2,500 words: 60 MB for each array of 96 numbers a word


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

    def evaluation_batches(self, size: int, device: torch.device) -> EvaluationBatches:
        """All items once, the shortest first; fewer at once, some being eight times as long as one that is cut."""
        return super().evaluation_batches(min(size, EVALUATED_AT_ONCE), device)


def _whole_texts(folder: Path) -> TextPreprocessor:
    """The tokenizer that the texts were prepared with, for texts of any length that the contract lets in."""
    contract = TextPreprocessing.model_validate_json((folder / "preprocessing.json").read_bytes())
    most = contract.max_characters
    whole = StreamPreprocessing.without_cutting(contract, max_pending_characters=most, max_words=most)
    return TextPreprocessor(whole, (folder / "tokenizer.json").read_bytes())
