"""The prepared form of texts: the tokenizer, and one Arrow file per split of texts, token ids and labels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from convoy.core import arrow, atomic

PAD, UNKNOWN = "[PAD]", "[UNK]"


@dataclass(frozen=True)
class Split:
    """Texts, their token ids (each (tokens,) int32) and labels (n,) int64 as indices of `names`."""

    contents: Sequence[str]
    tokens: list[NDArray[np.int32]]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    vocabulary: int  # token ids lie in 0..vocabulary-1
    pad_id: int


def write(path: Path, parts: Iterable[Split]) -> None:
    """Write one split of texts, a part at a time, at least one; the same parts give the same bytes."""
    parts = iter(parts)
    first = next(parts)
    batch = _to_record_batch(first)
    metadata = {"vocabulary": str(first.vocabulary), "pad_id": str(first.pad_id)}
    schema = batch.schema.with_metadata(metadata)
    with atomic.new_file(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch)
        for part in parts:
            writer.write_batch(_to_record_batch(part))


def read(path: Path) -> Split:
    """Read one split of texts; texts and token ids stay in the file, mapped into memory."""
    table = arrow.read(path)
    labels, names = arrow.decode_labels(table)
    tokens: list[NDArray[np.int32]] = []
    for chunk in table["tokens"].chunks:
        tokens += np.split(chunk.values.to_numpy(), chunk.offsets.to_numpy()[1:-1])
    token_numbers = {key: int(table.schema.metadata[key.encode()]) for key in ("vocabulary", "pad_id")}
    return Split(_MappedTexts(table["text"]), tokens, labels, names, **token_numbers)


def build_tokenizer(texts: Iterable[str], vocabulary_size: int) -> str:
    """A word-level tokenizer: `<br />` out, lower case, words with their apostrophe, single punctuation marks.

    [PAD] is 0 and [UNK] is 1; the most frequent words follow, so that the same texts give the same file.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"<br\s*/?>"), " "), normalizers.NFKC(), normalizers.Lowercase()]
    )
    word = Regex(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # U+2019 is the typographic apostrophe
    tokenizer.pre_tokenizer = pre_tokenizers.Split(word, behavior="removed", invert=True)
    trainer = trainers.WordLevelTrainer(vocab_size=vocabulary_size - 2, special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # Not as special tokens: those would be found in a user's text, and a text that says "[PAD]" would hold padding.
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    vocabulary = {PAD: 0, UNKNOWN: 1} | {word: index + 2 for word, index in words}
    tokenizer.model = models.WordLevel(vocabulary, unk_token=UNKNOWN)
    return str(tokenizer.to_str(pretty=True))


class _MappedTexts(Sequence[str]):
    """Texts that stay in their file until they are read."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        texts: str | list[str]
        texts = self._column[index].to_pylist() if isinstance(index, slice) else self._column[index].as_py()
        return texts

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(chunk.to_pylist() for chunk in self._column.chunks)


def _to_record_batch(part: Split) -> pa.RecordBatch:
    offsets = np.cumsum([0, *map(len, part.tokens)], dtype=np.int32)
    tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(part.tokens).astype(np.int32)))
    columns = [pa.array(part.contents, pa.string()), tokens, arrow.encode_labels(part.labels, part.names)]
    return pa.record_batch(columns, names=["text", "tokens", "label"])
