"""Columns and labels <-> a memory-mapped Arrow file."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from convoy.core import atomic


def encode_labels(labels: NDArray[np.int64], names: tuple[str, ...]) -> pa.Array:
    """Labels (n,) as indices of `names`, with the names."""
    return pa.DictionaryArray.from_arrays(pa.array(labels.astype(np.int32)), pa.array(list(names)))


def decode_labels(table: pa.Table) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The labels (n,) and names that `encode_labels` took."""
    column = table["label"].combine_chunks()
    return column.indices.to_numpy().astype(np.int64), tuple(column.dictionary.to_pylist())


def write(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write columns as one Arrow file that appears whole or not at all; the same content gives the same bytes."""
    table = pa.table(columns, metadata=metadata)
    with atomic.new_file(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table)


def read(path: Path) -> pa.Table:
    """Map the file into memory."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run `dvc repro` to prepare it")
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
