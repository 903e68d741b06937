"""Raw texts -> the tokenizer, built from the training split alone, and one Arrow file for each split."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from convoy.core import atomic
from convoy.core.params import Section
from convoy.core.paths import CONTRACT
from convoy.core.rejection import InputRejected
from convoy.kinds.preparing.content import Indices
from convoy.kinds.preparing.kind import NearPairs, RawContents, digest
from convoy.kinds.text.items.prepared import Split as TextSplit
from convoy.kinds.text.items.prepared import build_tokenizer
from convoy.kinds.text.items.prepared import write as write_texts
from convoy.kinds.text.items.preprocessing import TextPreprocessing, TextPreprocessor, check
from convoy.kinds.text.preparing.facts import Facts, count_scripts
from convoy.kinds.text.preparing.near_duplicates import near_pairs

BLOCK_TEXTS = 250  # texts encoded at once; the tokenizer takes up to 90 kB for each while it does
TOKENIZER = "contract/tokenizer.json"  # in the folder of the prepared data


class Params(Section):
    """What the preparation of texts is told besides how to divide them."""

    vocabulary_size: int = Field(ge=100)
    preprocessing: TextPreprocessing


class Preparation:
    """All raw texts that the server would not reject.

    `rows` (n,) are their rows among the raw texts, `keys` their digests, `rejected` the rows of the others with the
    reason. `facts` are complete once `write` has encoded the texts.
    """

    def __init__(self, raw: RawContents, params: Params, folder: Path) -> None:
        self._raw, self._params, self._folder = raw, params, folder
        rows: list[int] = []
        characters: list[int] = []
        self.keys: list[bytes] = []
        self.rejected: list[tuple[int, InputRejected]] = []
        for row, text in enumerate(_read_all(raw)):
            try:
                check(text, params.preprocessing)
            except InputRejected as rejection:
                self.rejected.append((row, rejection))
                continue
            rows.append(row)
            characters.append(len(text))
            self.keys.append(digest(text.encode()))
        self.rows: Indices = np.array(rows, dtype=np.int64)
        self._texts = LazyTexts(raw, self.rows)
        n = len(rows)
        self.facts = Facts(
            np.array(characters, dtype=np.int64),
            np.zeros(n, dtype=np.int64),
            np.zeros(n, dtype=np.int64),
            np.zeros(n, dtype=np.bool_),
            [],
        )

    def write(self, splits: Mapping[str, Indices], labels: Indices, names: tuple[str, ...]) -> dict[str, object]:
        """Write the tokenizer, each split and the contract; `labels` (n,) are indices of `names`."""
        contract = self._params.preprocessing
        training_texts = LazyTexts(self._raw, self.rows[splits["train"]])
        tokenizer_json = build_tokenizer(training_texts, self._params.vocabulary_size).encode()
        atomic.write_bytes(self._folder / TOKENIZER, tokenizer_json)
        preprocessor = TextPreprocessor(contract, tokenizer_json)
        for name, items in splits.items():
            parts = self._encode(preprocessor, items, labels, names, name)
            write_texts(self._folder / f"{name}.arrow", parts)
        atomic.write_json(self._folder / CONTRACT, contract.model_dump(mode="json"))
        self.facts = Facts(**{**vars(self.facts), "scripts": [count_scripts(text) for text in self._texts]})
        return {"vocabulary": preprocessor.tokenizer.get_vocab_size()}

    def near_pairs(self, split_of: Indices) -> NearPairs:
        """Near-duplicates in different splits, `split_of` (n,) with train as 0 and -1 for none."""
        print("text: comparing all texts", flush=True)
        return near_pairs(self._texts, split_of)

    def show(self, item: int) -> str:
        """One text, as the report shows it."""
        return self._texts[item]

    def _encode(
        self, preprocessor: TextPreprocessor, items: Indices, labels: Indices, names: tuple[str, ...], split: str
    ) -> Iterator[TextSplit]:
        """The texts of one split, a block at a time; the facts of each are noted."""
        contract, vocabulary = self._params.preprocessing, preprocessor.tokenizer.get_vocab_size()
        starts = range(0, len(items), BLOCK_TEXTS)
        for start in tqdm(starts, f"text {split}: encoding", unit=f" x {BLOCK_TEXTS}", mininterval=1):
            block = items[start : start + BLOCK_TEXTS]
            texts = LazyTexts(self._raw, self.rows[block])[:]
            prepared = preprocessor.prepare_all(texts)
            tokens = [text.array.astype(np.int32) for text in prepared]
            self.facts.tokens[block] = [len(ids) for ids in tokens]
            self.facts.unknown[block] = [np.count_nonzero(ids == contract.unknown_id) for ids in tokens]
            self.facts.truncated[block] = [text.truncated for text in prepared]
            yield TextSplit(texts, tokens, labels[block], names, vocabulary, contract.pad_id)


class LazyTexts(Sequence[str]):
    """The texts of these rows (n,) of the raw items, each read at its access."""

    def __init__(self, raw: RawContents, rows: NDArray[np.int64]) -> None:
        self._raw, self._rows = raw, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [str(self._raw.content(row)) for row in self._rows[index].tolist()]
        return str(self._raw.content(int(self._rows[index])))


def _read_all(raw: RawContents) -> Iterator[str]:
    progress = tqdm(desc="text: looking", total=len(raw), unit="", mininterval=1)
    for contents in raw.contents():
        for text in contents:
            assert isinstance(text, str)
            yield text
        progress.update(len(contents))
    progress.close()
