"""Labels with a meaning to HTML, URLs, JSON or Prometheus: every answer gives them as they are."""

import time
from functools import partial
from pathlib import Path

import httpx
import pytest
import tiny_bundles
from conftest import WRITERS, deploy, serve
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.process
ODD = ('</script>"\\n\\', "/pol/?a=b&c#d+C++", "line\nbreak\t\u202ez\u0301")
AS_PNG = {"content-type": "image/png"}


def _counted(metrics: str) -> set[str]:
    samples = (sample for family in text_string_to_metric_families(metrics) for sample in family.samples)
    return {sample.labels["label"] for sample in samples if sample.name == "convoy_predictions_total" and sample.value}


def test_answers_and_metrics_hold_odd_labels_unchanged(tmp_path: Path) -> None:
    card = tiny_bundles.IMAGE_CARD.model_copy(update={"labels": ODD})
    for task in WRITERS:
        deploy(tmp_path, task, partial(tiny_bundles.write_image_bundle, card=card) if task == "fashion" else None)
    with serve(tmp_path, tmp_path) as server, httpx.Client(base_url=server.url, headers=AS_PNG) as client:
        assert tuple(client.get("/v1/models").json()["tasks"]["fashion"]["card"]["labels"]) == ODD
        for brightness, label in zip((5, 120, 250), ODD, strict=True):
            body = tiny_bundles.png(brightness)
            (answer,) = client.post("/v1/fashion/predict", content=body).json()["predictions"]
            assert answer["label"] == label and tuple(answer["probabilities"]) == ODD
            explained = client.post("/v1/fashion/explain", content=body, params={"label": label})
            assert explained.status_code == 200 and explained.json()["label"] == label
        for _ in range(50):  # what a worker counts is there half a second later
            if (labels := _counted(client.get("/metrics").text)) == set(ODD):
                break
            time.sleep(0.1)
    assert labels == set(ODD)
