"""Prepared texts -> padded batches of uncut texts, for the model that reads a text in pieces."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from convoy.kinds.evaluation_batches import EvaluationBatches
from convoy.kinds.text.dataset import BatchParams, TextDataset
from convoy.kinds.text.prepared import read as read_texts
from convoy.kinds.text.preprocessing import StreamPreprocessing, TextPreprocessing, TextPreprocessor

__all__ = ["BatchParams", "TextStreamDataset"]

ENCODED_AT_ONCE = 250  # texts encoded at once; the tokenizer takes up to 90 kB for each while it does
LARGEST_EVALUATION_BATCH = 64  # of 2,500 words: 60 MB for each array of 96 numbers a word


class TextStreamDataset(TextDataset):
    """One split whose token ids are made again from its texts: those in the file are cut for the task `text`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        preprocessor = _open_preprocessor(path.parent / "contract")
        texts = iter(read_texts(path).contents)
        self.arrays = []
        while part := list(islice(texts, ENCODED_AT_ONCE)):
            self.arrays += [prepared.array.astype(np.int32) for prepared in preprocessor.prepare_all(part)]
        self.lengths = np.array([len(tokens) for tokens in self.arrays])
        self.evaluation_order = np.argsort(self.lengths, kind="stable")

    def evaluation_batches(self, size: int, device: torch.device) -> EvaluationBatches:
        """All items once, the shortest first; in smaller batches, since some are eight times as long as a cut text."""
        return super().evaluation_batches(min(size, LARGEST_EVALUATION_BATCH), device)


def _open_preprocessor(folder: Path) -> TextPreprocessor:
    """The preprocessor of the prepared texts, without cutting: for texts of any length that the contract accepts."""
    contract = TextPreprocessing.model_validate_json((folder / "preprocessing.json").read_bytes())
    longest = contract.max_characters
    uncut = StreamPreprocessing.without_cutting(contract, max_pending_characters=longest, max_words=longest)
    return TextPreprocessor(uncut, (folder / "tokenizer.json").read_bytes())
