"""`make demo` from nothing: its params build a model of each task, each has learned, and the service answers."""

import json
from pathlib import Path

import httpx
import pytest
from built_copy import build, served

pytestmark = [pytest.mark.pipeline, pytest.mark.proof]
LEAST_ACCURACY = {"fashion": 0.75, "reviews": 0.65}  # demo.yaml leaves the stream out


def test_the_demo_builds_learns_and_answers(tmp_path: Path) -> None:
    folder = build(tmp_path / "convoy", Path("demo.yaml"), OMP_NUM_THREADS="2")  # as a user's machine has it
    for task, least in LEAST_ACCURACY.items():
        report = json.loads((folder / "reports" / task / "test.json").read_text())
        assert report["accuracy"] > least, (task, report["accuracy"])
    with served(folder) as url:
        assert set(httpx.get(f"{url}/v1/models").json()["tasks"]) == set(LEAST_ACCURACY)
        answer = httpx.post(f"{url}/v1/reviews/predict", json={"texts": ["A wonderful film."]}, timeout=30)
    assert answer.status_code == 200 and answer.json()["predictions"][0]["label"] == "positive"
