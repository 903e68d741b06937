"""A BentoML service as the quick start has it: a synchronous method that takes a picture, everything at its default."""

import os

import bentoml
import numpy as np
import onnxruntime as ort
from PIL.Image import Image


@bentoml.service
class Peer:
    """One image -> its label and probabilities."""

    def __init__(self) -> None:
        self.session = ort.InferenceSession(os.environ["IMAGE_ONNX"])
        self.labels = os.environ["IMAGE_LABELS"].split(",")

    @bentoml.api
    def predict(self, image: Image) -> dict[str, object]:
        """Resize, run, name the best."""
        pixels = np.asarray(image.convert("L").resize((28, 28)), dtype=np.uint8)[None, :, :, None]
        (row,) = self.session.run(None, {self.session.get_inputs()[0].name: pixels})[0]
        return {
            "label": self.labels[int(row.argmax())],
            "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
        }
