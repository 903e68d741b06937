"""A bundle migrated from format 1 predicts as it did; what it was never calibrated for ends in a clear error."""

import json
from pathlib import Path

import pytest
import tiny_bundles
from conftest import deploy, error_of, service_of

from convoy.operations.migrate import migrate

pytestmark = pytest.mark.process
OLD = Path(__file__).parents[1] / "old_bundles"


def test_it_predicts_and_says_that_it_has_no_sets(tmp_path: Path) -> None:
    for task, kind in (("fashion", "image"), ("reviews", "text")):
        deploy(tmp_path, task, lambda folder, kind=kind: migrate(OLD / f"format-1-{kind}", folder, print) and None)
    deploy(tmp_path, "reviews-stream")  # there was none in format 1
    examples = json.loads((OLD / "format-1-text" / "examples.json").read_bytes())
    with service_of(tmp_path) as client:
        assert client.get("/readyz").status_code == 200
        predicted = client.post(
            "/v1/reviews/predict", json={"texts": [example["input"] for example in examples]}
        ).json()
        for prediction, example in zip(predicted["predictions"], examples, strict=True):
            assert list(prediction["probabilities"].values()) == pytest.approx(example["probabilities"], abs=1e-6)
        for answer in (
            client.post("/v1/reviews/sets", json={"texts": ["good"]}),
            client.post("/v1/fashion/sets", files={"image": tiny_bundles.png(9)}),
        ):
            assert answer.status_code == 409
            error = error_of(answer)
            assert error["code"] == "sets_uncalibrated" and "never calibrated" in error["message"]
        assert client.post("/v1/reviews/sets", json={"texts": [" "]}).status_code == 422
        assert client.get("/v1/models").json()["tasks"]["reviews"]["card"]["sets"]["n"] == 0
