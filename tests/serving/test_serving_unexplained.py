"""Bundles that explain nothing, that explain by occlusion alone, and what is loaded when it is first asked for."""

from pathlib import Path
from typing import Any

import pytest
import tiny_bundles
from conftest import deploy, error_of, service_of, without_id
from jsonschema import Draft202012Validator

from convoy.bundles import explanation

IMAGE, TEXT = "/v1/fashion/explain", "/v1/reviews/explain"
PNG = {"image": tiny_bundles.png(200)}


def test_a_bundle_without_explanations_predicts_and_names_the_remedy(tmp_path: Path) -> None:
    plain: dict[str, Any] = {
        "fashion": (tiny_bundles.write_image_bundle, tiny_bundles.IMAGE_CARD),
        "reviews": (tiny_bundles.write_text_bundle, tiny_bundles.TEXT_CARD),
    }
    for task, (write, card) in plain.items():
        without = card.model_copy(update={"explanation": None})
        deploy(tmp_path, task, lambda folder, write=write, without=without: write(folder, without))
    deploy(tmp_path, "reviews-stream")
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
        assert client.post("/v1/reviews/predict", json={"texts": ["good"]}).status_code == 200


def test_an_image_without_explanation_onnx_is_explained_by_occlusion(tmp_path: Path) -> None:
    deploy(tmp_path, "fashion", lambda folder: tiny_bundles.write_image_bundle(folder, adds_up=False))
    with service_of(tmp_path) as client:
        answers = [client.post(IMAGE + query, files=PNG) for query in ("", "?method=occlusion")]
        assert without_id(answers[0]) == without_id(answers[1]) and answers[0].status_code == 200
        assert answers[0].json()["method"] == "occlusion" and "bias" not in answers[0].json()
        refused = client.post(f"{IMAGE}?method=contributions", files=PNG)
        assert (refused.status_code, error_of(refused)["code"]) == (409, "explanation_missing")
        assert "method=occlusion" in error_of(refused)["message"]


def test_a_text_without_explanation_onnx_is_explained_by_occlusion(tmp_path: Path) -> None:
    deploy(tmp_path, "reviews", lambda folder: tiny_bundles.write_text_bundle(folder, adds_up=False))
    words = ["good", "bad", "good", "the", "film"]
    with service_of(tmp_path) as client:
        answer = client.post(TEXT, json={"text": " ".join(words), "label": "positive"}).json()
        texts = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
        left = client.post("/v1/reviews/predict", json={"texts": texts}).json()["predictions"]
        components = client.get("/docs.json").json()["components"]
    schema = {"$ref": "#/components/schemas/TextExplanationAnswer", "components": components}
    Draft202012Validator(schema).validate(answer)
    assert (answer["method"], answer["phrases"]) == ("occlusion", []) and "bias" not in answer
    assert [word["text"] for word in answer["words"]] == words
    falls = [answer["probability"] - prediction["probabilities"]["positive"] for prediction in left]
    assert [word["contribution"] for word in answer["words"]] == pytest.approx(falls, abs=1e-6)
    assert answer["words"][-1]["probability_after"] == pytest.approx(answer["probability"], abs=1e-6)


def test_what_explains_is_loaded_by_the_first_who_asks_and_goes_with_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    opened = explanation.open_session
    monkeypatch.setattr(explanation, "open_session", lambda name, *rest: loaded.append(name) or opened(name, *rest))
    for task in ("fashion", "reviews"):
        deploy(tmp_path, task)
    with service_of(tmp_path) as client:
        client.post("/v1/reviews/predict", json={"texts": ["good"]})
        assert loaded == []
        first, again = (client.post(TEXT, json={"text": "good film"}) for _ in range(2))
        assert loaded == ["explanation.onnx"] and first.status_code == again.status_code == 200
    with service_of(tmp_path) as client:
        client.post(TEXT, json={"text": "good film"})
        assert loaded == ["explanation.onnx"] * 2
