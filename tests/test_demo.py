"""`make demo` from nothing: it builds a model of each task, each has learned, and the service answers."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from built_copy import ROOT, command
from test_ports import free_port

from convoy.lineage import workspace
from convoy.operations import demo, smoke_request

pytestmark = pytest.mark.pipeline
LEAST_ACCURACY = {"fashion": 0.75, "reviews": 0.65}  # demo.yaml leaves the stream out
BUILD_S = 600  # two minutes on a quiet machine


@pytest.mark.proof
def test_the_demo_builds_learns_and_answers(tmp_path: Path) -> None:
    folder, port, mlflow_port = tmp_path / "demo", free_port(), free_port()
    words = ["convoy", "demo", str(folder), "--port", str(port), "--mlflow-port", str(mlflow_port)]
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, stdout=stream, stderr=stream)
        try:
            url = f"http://127.0.0.1:{port}"
            ready = smoke_request.wait_until_ready([f"{url}/readyz"], BUILD_S, lambda: process.poll() is not None)
            assert ready, log.read_text()[-3000:]
            assert set(httpx.get(f"{url}/v1/models").json()["tasks"]) == set(LEAST_ACCURACY)
            answer = httpx.post(f"{url}/v1/reviews/predict", json={"texts": ["A wonderful film."]}, timeout=30)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    assert answer.status_code == 200 and answer.json()["predictions"][0]["label"] == "positive"
    for task, least in LEAST_ACCURACY.items():
        report = json.loads((folder / "reports" / task / "test.json").read_text())
        assert report["accuracy"] > least, (task, report["accuracy"])
    assert "up to date" in command(folder, "dvc", "repro")  # nothing was left out


def test_a_failed_data_set_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = yaml.safe_load((ROOT / "demo.yaml").read_text())
    overrides["data"]["reviews"]["fetch"] = {"source": "no-such-source"}
    Path("demo.yaml").write_text(yaml.safe_dump(overrides))
    workspace.create(Path("demo"), Path("demo.yaml"), ROOT)
    monkeypatch.chdir("demo")
    lines: list[str] = []
    assert demo.build(workspace.environment(Path()), lines.append)
    assert any(line.startswith("reviews | ") and "no-such-source" in line for line in lines), lines
    assert any(line.startswith("fashion | ") for line in lines)
    here = [
        process for process in psutil.Process().children(recursive=True) if "pipelines" in " ".join(process.cmdline())
    ]
    assert here == [] and not Path("reports/fashion/test.json").exists()
