"""Raw texts -> those that can be used, and their token ids a part at a time; what cannot be used, with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from convoy.prepared.text import TextSplit
from convoy.preprocessing.rejection import InputRejected
from convoy.preprocessing.text import TextPreprocessing, TextPreprocessor, check
from convoy.raw import RawItems
from convoy.sources.items import Rejection

PART = 1_000  # texts encoded at once


@dataclass(frozen=True)
class UsableTexts:
    """What became of raw texts: `rows` (n,) int64 are those that can be used."""

    rows: NDArray[np.int64]
    keys: list[bytes]  # digests of the texts
    characters: NDArray[np.int64]
    rejections: list[Rejection]


def look(raw: RawItems, contract: TextPreprocessing) -> UsableTexts:
    """Refuse what serving would refuse."""
    rows: list[int] = []
    keys: list[bytes] = []
    characters: list[int] = []
    rejections: list[Rejection] = []
    progress = tqdm(desc="text: looking", total=len(raw), unit="", mininterval=1)
    row = 0
    for contents in raw.contents():
        for text in contents:
            assert isinstance(text, str)
            try:
                check(text, contract)
                rows.append(row)
                keys.append(blake2b(text.encode(), digest_size=16).digest())
                characters.append(len(text))
            except InputRejected as rejection:
                rejections.append(Rejection(raw.name(row), rejection.code, rejection.message))
            row += 1
        progress.update(len(contents))
    progress.close()
    return UsableTexts(np.array(rows, dtype=np.int64), keys, np.array(characters, dtype=np.int64), rejections)


def texts_of(raw: RawItems, rows: NDArray[np.int64]) -> Iterator[str]:
    """The texts of these rows, one at a time."""
    for row in rows.tolist():
        yield str(raw.content(row))


class Encoder:
    """Encodes splits, and keeps of each text how many tokens it has, whether it was cut, how many are unknown."""

    def __init__(self, raw: RawItems, preprocessor: TextPreprocessor) -> None:
        self._raw, self._preprocessor = raw, preprocessor
        self.vocabulary = preprocessor.tokenizer.get_vocab_size()
        self.tokens: NDArray[np.int64] = np.zeros(len(raw), dtype=np.int64)  # by the row of the raw item
        self.unknown: NDArray[np.int64] = np.zeros(len(raw), dtype=np.int64)
        self.truncated: NDArray[np.bool_] = np.zeros(len(raw), dtype=np.bool_)

    def encode(self, rows: NDArray[np.int64], name: str) -> Iterator[TextSplit]:
        """The texts of these rows as parts of one split."""
        contract = self._preprocessor.contract
        for start in tqdm(range(0, len(rows), PART), f"text {name}: encoding", unit=f" x {PART}", mininterval=1):
            part = rows[start : start + PART]
            texts = list(texts_of(self._raw, part))
            prepared = self._preprocessor.prepare_all(texts)
            tokens = [text.array.astype(np.int32) for text in prepared]
            self.tokens[part] = [len(ids) for ids in tokens]
            self.unknown[part] = [np.count_nonzero(ids == contract.unknown_id) for ids in tokens]
            self.truncated[part] = [text.truncated for text in prepared]
            labels = self._raw.label_of[part]
            yield TextSplit(texts, tokens, labels, self._raw.labels, self.vocabulary, contract.pad_id)

    def shares(self, rows: NDArray[np.int64]) -> dict[str, float]:
        """How many texts were cut, and how many of the words kept are not in the vocabulary."""
        return {
            "truncated_share": round(float(self.truncated[rows].mean()), 4),
            "unknown_share": round(float(self.unknown[rows].sum() / self.tokens[rows].sum()), 4),
        }
