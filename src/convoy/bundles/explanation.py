"""explanation.onnx of a bundle -> what each place, word or phrase of an input adds to each logit; onnxruntime alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.bundle import EXPLANATION, BundleInvalid, read_file
from convoy.bundles.predictor import Model, Predictor, open_session

OUTPUTS = ["contributions", "logits"]


@dataclass(frozen=True)
class Explained:
    """One input: probabilities (labels,), and the sum that they are the softmax of.

    For each label `bias` (labels,) and all places of `contributions` (labels, rows, columns) add up to its logit,
    divided by the temperature and relative to the mean of the labels: above 0 speaks for a label, more than for others.
    An image has rows and columns of places; a text has its words as columns, and a row per width of phrase.
    """

    probabilities: NDArray[np.float32]
    contributions: NDArray[np.float32]
    bias: NDArray[np.float32]


class Explainer:
    """The session of explanation.onnx, beside the model that it explains."""

    def __init__(self, model: Model, content: bytes, threads: int = 1) -> None:
        """Raises BundleInvalid where `content` is no graph that explains."""
        self.model = model
        self._session = open_session(EXPLANATION, content, threads)
        outputs = [output.name for output in self._session.get_outputs()]
        if outputs != OUTPUTS or len(self._session.get_inputs()) != 1:
            raise BundleInvalid(f"{EXPLANATION} has outputs {outputs}, {OUTPUTS} are expected; export the bundle again")
        self._input_name: str = self._session.get_inputs()[0].name

    def run(self, batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One collated batch -> contributions (batch, labels, rows, columns) and logits (batch, labels)."""
        contributions, logits = self._session.run(OUTPUTS, {self._input_name: batch})
        return contributions, logits

    def explain(self, array: NDArray[Any]) -> Explained:
        """Explain one prepared input. Raises ValueError where the model gives NaN or infinity."""
        (contributions,), (logits,) = self.run(self.model.preprocessor.collate([array]))
        if not (np.isfinite(contributions).all() and np.isfinite(logits).all()):
            raise ValueError("the model gave a contribution that is no number")
        return Explained(softmax(logits), contributions, logits - contributions.sum(axis=(1, 2)))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (..., labels) -> probabilities."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def open_explainer(predictor: Predictor, threads: int = 1) -> Explainer | None:
    """Load the explainer of a predictor, only when it is needed; None where its bundle has none.

    Raises BundleInvalid where the folder by now holds another bundle than the one of the predictor.
    """
    if predictor.card.explanation is None:
        return None
    content = read_file(predictor.folder, EXPLANATION, predictor.digest)
    return None if content is None else Explainer(predictor, content, threads)
