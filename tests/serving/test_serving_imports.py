"""What `import serving.service` brings along, in a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
started = time.perf_counter()
import serving.service
assert time.perf_counter() - started < 10, "slow import"
print([name for name in ("torch", "pytorch_lightning", "mlflow", "dvc", "onnx", "pyarrow", "sklearn", "matplotlib")
       if name in sys.modules])
"""


def test_the_service_is_imported_without_anything_that_trains_or_tracks() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
