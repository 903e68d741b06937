"""LitServe with everything at its default; the image comes as a file of a form."""

import os
import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort
from PIL import Image
from starlette.requests import Request


class Peer(litserve.LitAPI):
    """One image -> its label and probabilities."""

    def setup(self, device: str) -> None:
        """Once per worker."""
        self.session = ort.InferenceSession(os.environ["IMAGE_ONNX"])
        self.labels = os.environ["IMAGE_LABELS"].split(",")

    def decode_request(self, request: Request) -> Any:
        """The form -> pixels."""
        image = Image.open(request["image"].file)
        return np.asarray(image.convert("L").resize((28, 28)), dtype=np.uint8)[None, :, :, None]

    def predict(self, x: Any) -> Any:
        """Pixels -> probabilities."""
        return self.session.run(None, {self.session.get_inputs()[0].name: x})[0][0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Probabilities -> JSON."""
        return {
            "label": self.labels[int(output.argmax())],
            "probabilities": dict(zip(self.labels, output.tolist(), strict=True)),
        }


if __name__ == "__main__":
    litserve.LitServer(Peer(), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1
    )
