"""Some inputs -> the rows of the output that they become, by the bundle that is deployed."""

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from convoy.bundles.bundle import BundleInvalid
from convoy.bundles.predictor import Predictor, Prepared
from convoy.core.paths import DEPLOYED, Task
from convoy.kinds.image.preprocessing import Polarity
from convoy.kinds.rejection import InputRejected
from convoy.kinds.text.preprocessing import PreparedText
from convoy.operations.score.inputs import Item, decode, read_file


@dataclass(frozen=True)
class Scorer:
    """The deployed model of one task, loaded once, and how inputs are read for it."""

    predictor: Predictor
    encoding: str
    polarity: Polarity | None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the output, and who made it."""
        card = self.predictor.card
        fields = {"row": pa.int64(), "name": pa.string(), "label": pa.string(), "probability": pa.float32()}
        each = {f"probability_{label}": pa.float32() for label in card.labels}
        made_by = {"digest": self.predictor.digest, "task": card.task, "version": version("convoy")}
        metadata = {f"convoy.{key}": value for key, value in made_by.items()}
        return pa.schema({**fields, **each, "warning": pa.string(), "error": pa.string()}, metadata=metadata)

    def score(self, first_row: int, items: list[Item]) -> pa.Table:
        """One row per item, in order; an item that cannot be used has its reason in `error` and no probability."""
        prepared: dict[int, Prepared] = {}
        errors: list[str | None] = [None] * len(items)
        for index, item in enumerate(items):
            try:
                prepared[index] = self._prepare(item)
            except InputRejected as rejection:
                errors[index] = f"{rejection.code}: {rejection.message}"
        found = np.full((len(items), len(self.predictor.card.labels)), np.nan, dtype=np.float32)
        if prepared:
            found[list(prepared)] = self.predictor.probabilities([item.array for item in prepared.values()])
        missing = np.isnan(found).any(axis=1)
        for index in np.flatnonzero(missing).tolist():
            errors[index] = errors[index] or "model_failed: the model gave a probability that is no number"
        best = np.where(missing, 0, found.argmax(axis=1))
        columns = [
            pa.array(range(first_row, first_row + len(items)), pa.int64()),
            pa.array([item.name for item in items], pa.string()),
            pa.array(np.array(self.predictor.card.labels, dtype=object)[best], pa.string(), mask=missing),
            *(pa.array(column, pa.float32(), mask=missing) for column in (found.max(axis=1), *found.T)),
            pa.array([_warning_of(prepared.get(index)) for index in range(len(items))], pa.string()),
            pa.array(errors, pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _prepare(self, item: Item) -> Prepared:
        raw: bytes | str
        if isinstance(item.content, InputRejected):
            raise item.content
        if isinstance(item.content, str):
            raw = item.content
        else:
            raw = read_file(item.content, self.predictor.card.limits.max_body_bytes)  # no more than REST takes
            if self.predictor.card.task != "image":
                raw = decode(raw, self.encoding)
        return self.predictor.prepare(raw, **({"polarity": self.polarity} if self.polarity else {}))


def load(task: Task) -> Predictor:
    """What stands in deployed/, or in $CONVOY_DEPLOYED, for a task. Raises BundleInvalid with the remedy."""
    current = Path(os.environ.get("CONVOY_DEPLOYED") or DEPLOYED, task, "current")
    if not current.exists():
        raise BundleInvalid(
            f"{current.absolute()} is missing: no {task} model is deployed. `python -m convoy publish` deploys what "
            "`dvc repro` built; CONVOY_DEPLOYED names another folder."
        )
    folder = current.resolve()  # once: `current` may move while the files are read
    predictor = Predictor(folder)  # one thread each time it runs: several batches at once make more of the cores
    if predictor.card.task != task:
        raise BundleInvalid(f"{folder} is a bundle for {predictor.card.task}, not for {task}; deploy the right one")
    return predictor


def _warning_of(prepared: Prepared | None) -> str | None:
    """What REST says in `warnings` and `truncated`."""
    if prepared is None:
        return None
    said = [warning.replace("?polarity", "--polarity") for warning in prepared.warnings]
    if isinstance(prepared, PreparedText) and prepared.truncated:
        said.append("the text was cut")
    return "; ".join(said) or None
