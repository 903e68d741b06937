"""The loader that MLflow calls for a registered version: a bundle folder -> predictions on raw inputs."""

from pathlib import Path
from typing import Any

import pandas as pd

from convoy.predictor import Predictor


class RawInputModel:
    """Answers a table of raw inputs: a column `text` of str, or a column `image` of bytes."""

    def __init__(self, folder: Path) -> None:
        self._predictor = Predictor(folder)
        self._column = self._predictor.card.task

    def predict(self, table: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per input, in order: label, probability, probabilities. Raises InputRejected."""
        labels = self._predictor.card.labels
        arrays = [self._predictor.prepare(raw).array for raw in table[self._column]]
        found = self._predictor.probabilities(arrays)
        return pd.DataFrame(
            {
                "label": [labels[row.argmax()] for row in found],
                "probability": [float(row.max()) for row in found],
                "probabilities": [dict(zip(labels, map(float, row), strict=True)) for row in found],
            }
        )


def _load_pyfunc(path: str) -> RawInputModel:
    return RawInputModel(Path(path))
