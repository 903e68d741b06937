"""One Arrow file per split of texts, their token ids and their labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from convoy.prepared.arrow import decode_labels, encode_labels, read, write


@dataclass(frozen=True)
class TextSplit:
    """Texts, their token ids (each (tokens,) int32) and labels (n,) int64 as indices of `names`."""

    texts: list[str]
    tokens: list[NDArray[np.int32]]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    vocabulary: int  # token ids lie in 0..vocabulary-1
    pad_id: int


def write_texts(path: Path, split: TextSplit) -> None:
    """Write one split of texts; the same content gives the same bytes."""
    offsets = np.cumsum([0, *map(len, split.tokens)], dtype=np.int32)
    values = np.concatenate(split.tokens).astype(np.int32)
    tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    labels = encode_labels(split.labels, split.names)
    columns = {"text": pa.array(split.texts, pa.string()), "tokens": tokens, "label": labels}
    write(path, columns, {"vocabulary": str(split.vocabulary), "pad_id": str(split.pad_id)})


def read_texts(path: Path) -> TextSplit:
    """Read one split of texts."""
    table = read(path)
    labels, names = decode_labels(table)
    tokens = table["tokens"].combine_chunks()
    values, offsets = tokens.values.to_numpy(), tokens.offsets.to_numpy()
    numbers = {key: int(table.schema.metadata[key.encode()]) for key in ("vocabulary", "pad_id")}
    return TextSplit(table["text"].to_pylist(), np.split(values, offsets[1:-1]), labels, names, **numbers)
