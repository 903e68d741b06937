"""The loader that MLflow calls for a registered version: a bundle folder -> predictions on raw inputs."""

import reprlib
from pathlib import Path
from typing import Any

import pandas as pd

from convoy.bundles.predictor import Predictor, Prepared
from convoy.core.rejection import InputRejected
from convoy.kinds.registry import module

_MAX_NAMED_ROWS = 5  # rejected rows that an error names; a table may have millions


class RawInputModel:
    """Answers a table of raw inputs in a column named after the task: bytes of images, str of texts."""

    def __init__(self, folder: Path) -> None:
        self._predictor = Predictor(folder)
        self._task = self._predictor.card.task
        self._is_bytes = module(self._predictor.card.kind, "items.raw").RAW is bytes

    def predict(self, table: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row per input, with the index of `table`: label, probability, probabilities (label -> share).

        Raises InputRejected, which names the rejected rows by their index.
        """
        labels = self._predictor.card.labels
        probabilities = self._predictor.probabilities(
            [prepared.array for prepared in self._prepare_all(table[self._task])]
        )
        return pd.DataFrame(
            {
                "label": [labels[row.argmax()] for row in probabilities],
                "probability": [float(row.max()) for row in probabilities],
                "probabilities": [dict(zip(labels, map(float, row), strict=True)) for row in probabilities],
            },
            index=table.index,
        )

    def _prepare_all(self, column: "pd.Series[Any]") -> list[Prepared]:
        prepared: list[Prepared] = []
        rejected: list[tuple[int, InputRejected]] = []
        for position, value in enumerate(column):
            try:
                prepared.append(self._predictor.prepare(self._raw_input(value)))
            except InputRejected as error:
                rejected.append((position, error))
        if rejected:
            raise _rejection(column.index, rejected)
        return prepared

    def _raw_input(self, value: Any) -> bytes | str:
        """A cell as the predictor takes it. Raises InputRejected for a missing value and for another type."""
        if self._is_bytes and isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if not self._is_bytes and isinstance(value, str):
            return value
        if pd.api.types.is_scalar(value) and pd.isna(value):
            raise InputRejected("missing_value", f"`{self._task}` is missing")
        expected = "bytes are" if self._is_bytes else "a string is"
        raise InputRejected("malformed_row", f"`{self._task}` is a {type(value).__name__}, {expected} expected")


def _rejection(index: "pd.Index[Any]", rejected: list[tuple[int, InputRejected]]) -> InputRejected:
    """One error for all rejected rows, which are given by position."""
    shown = rejected[:_MAX_NAMED_ROWS]
    names = index[[position for position, _ in shown]].tolist()  # as Python's numbers, which print as such
    rows = [f"row {reprlib.repr(name)}: {error.message}" for name, (_, error) in zip(names, shown, strict=True)]
    remainder = f"; and {len(rejected) - _MAX_NAMED_ROWS} more" if len(rejected) > _MAX_NAMED_ROWS else ""
    message = f"{len(rejected)} of {len(index)} rows cannot be used: {'; '.join(rows)}{remainder}"
    return InputRejected(rejected[0][1].code, message)


def _load_pyfunc(path: str) -> RawInputModel:
    return RawInputModel(Path(path))
