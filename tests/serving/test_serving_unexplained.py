"""A bundle that explains nothing predicts; one that explains loads what it needs for that when it is first asked."""

from pathlib import Path
from typing import Any

import pytest
import tiny_bundles
from conftest import deploy, error_of, service_of

from convoy.bundles import explanation

IMAGE, TEXT = "/v1/images/explain", "/v1/texts/explain"
PNG = {"image": tiny_bundles.png(200)}


def test_a_bundle_without_explanations_predicts_and_names_the_remedy(tmp_path: Path) -> None:
    plain: dict[str, Any] = {
        "image": (tiny_bundles.write_image_bundle, tiny_bundles.IMAGE_CARD),
        "text": (tiny_bundles.write_text_bundle, tiny_bundles.TEXT_CARD),
    }
    for task, (write, card) in plain.items():
        without = card.model_copy(update={"explanation": None})
        deploy(tmp_path, task, lambda folder, write=write, without=without: write(folder, without))
    deploy(tmp_path, "text-stream")
    with service_of(tmp_path) as client:
        assert client.get("/readyz").status_code == 200
        answers = [
            client.post(IMAGE, files=PNG),
            client.post(f"{IMAGE}?method=occlusion", files=PNG),
            client.post(TEXT, json={"text": "good"}),
        ]
        for answer in answers:
            assert (answer.status_code, error_of(answer)["code"]) == (409, "explanation_missing")
            assert "export it again" in error_of(answer)["message"]
        assert client.post("/v1/texts/predict", json={"texts": ["good"]}).status_code == 200


def test_what_explains_is_loaded_by_the_first_who_asks_and_goes_with_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    opened = explanation.open_session
    monkeypatch.setattr(explanation, "open_session", lambda name, *rest: loaded.append(name) or opened(name, *rest))
    for task in ("image", "text"):
        deploy(tmp_path, task)
    with service_of(tmp_path) as client:
        client.post("/v1/texts/predict", json={"texts": ["good"]})
        assert loaded == []
        first, again = (client.post(TEXT, json={"text": "good film"}) for _ in range(2))
        assert loaded == ["explanation.onnx"] and first.status_code == again.status_code == 200
    with service_of(tmp_path) as client:
        client.post(TEXT, json={"text": "good film"})
        assert loaded == ["explanation.onnx"] * 2
