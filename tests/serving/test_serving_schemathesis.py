"""schemathesis reads the OpenAPI document and tries whatever it allows and forbids, on a real `bentoml serve`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FUZZ, Server
from hypothesis import settings

pytestmark = pytest.mark.process
CONFIG = Path(__file__).parent / "schemathesis.toml"
EXAMPLES = 500 if settings.get_current_profile_name() == FUZZ else 15  # per operation and phase


def test_every_answer_is_one_that_the_document_promises(server: Server, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run"]
    command += [f"{server.url}/docs.json", "--max-examples", str(EXAMPLES), "--max-response-time", "10"]
    command += ["--generation-deterministic", "--workers", "2"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(CONFIG.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
