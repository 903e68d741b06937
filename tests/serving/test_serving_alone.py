"""`pip install .[serve]` is enough: the service starts and answers where nothing of [train] can be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_bundles

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys

TRAIN_ONLY = {
    "dvc", "lightning_fabric", "matplotlib", "mlflow", "onnx", "onnxscript", "pandas", "pyarrow",
    "pytorch_lightning", "safetensors", "scipy", "sklearn", "sqlalchemy", "torch", "torchmetrics",
}


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in TRAIN_ONLY:
            raise ImportError(f"{name} belongs to [train]")


sys.meta_path.insert(0, NotInstalled())

from starlette.testclient import TestClient
from serving.service import service

with TestClient(service.to_asgi()) as client:
    assert client.get("/readyz").status_code == 200, client.get("/readyz").text
    image = client.post("/v1/fashion/predict", content=sys.stdin.buffer.read(), headers={"content-type": "image/png"})
    text = client.post("/v1/reviews/predict", json={"texts": ["the good film"]})
print(*(answer.json()["predictions"][0]["label"] for answer in (image, text)))
assert not TRAIN_ONLY & set(sys.modules)
"""


def test_the_service_answers_without_anything_that_only_training_needs(deployed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=tiny_bundles.png(255),
        cwd=ROOT,
        env={**os.environ, "CONVOY_DEPLOYED": str(deployed)},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.split()) == (0, [b"bright", b"positive"]), done.stderr.decode()
