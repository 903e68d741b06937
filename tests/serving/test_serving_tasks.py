"""Any number of tasks of any kind: what the service answers follows what is deployed now, without a restart."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest
import tiny_bundles
from conftest import deploy, error_of, serve, service_of
from starlette.testclient import TestClient

PNG = tiny_bundles.png(255)
AS_PNG = {"content-type": "image/png"}
# Another image task: other labels, another size, and other limits than the one of tiny_bundles.
DIGITS = tiny_bundles.IMAGE_CARD.model_copy(
    update={
        "task": "digits",
        "labels": ("zero", "one", "two"),
        "preprocessing": tiny_bundles.IMAGE_CARD.preprocessing.model_copy(update={"size_px": 14}),
        "limits": tiny_bundles.IMAGE_CARD.limits.model_copy(update={"max_items": 1}),
    }
)
write_digits = partial(tiny_bundles.write_image_bundle, card=DIGITS)
Post = Callable[..., httpx.Response]


def classify(post: Post, task: str, images: int = 1) -> httpx.Response:
    return post(f"/v1/{task}/predict", files=[("image", PNG)] * images)


def paths_of(client: TestClient) -> set[str]:
    return {path for path, item in client.get("/docs.json").json()["paths"].items() if "post" in item}


def test_two_image_tasks_answer_beside_each_other(tmp_path: Path) -> None:
    deploy(tmp_path, "fashion")
    deploy(tmp_path, "digits", write_digits)
    with service_of(tmp_path) as client:
        assert client.get("/readyz").status_code == 200
        answers = {task: classify(client.post, task).json() for task in ("fashion", "digits")}
        names = {task: answer["model"]["name"] for task, answer in answers.items()}
        assert names == {"fashion": "convoy-fashion", "digits": "convoy-digits"}
        labels = {task: tuple(answer["predictions"][0]["probabilities"]) for task, answer in answers.items()}
        assert labels == {"fashion": tiny_bundles.IMAGE_LABELS, "digits": DIGITS.labels}
        sizes = [
            client.post(f"/v1/{task}/explain", files={"image": PNG}).json()["size_px"] for task in ("fashion", "digits")
        ]
        assert sizes == [28, 14]
        assert client.post("/v1/digits/explain?label=bright", files={"image": PNG}).status_code == 422
        assert [classify(client.post, task, 2).status_code for task in ("fashion", "digits")] == [200, 422]
        verbs = ("predict", "sets", "explain")
        assert paths_of(client) == {f"/v1/{task}/{verb}" for task in ("fashion", "digits") for verb in verbs}


def test_images_alone_are_ready_without_any_text(tmp_path: Path) -> None:
    deploy(tmp_path, "fashion")
    with service_of(tmp_path) as client:
        assert client.get("/readyz").status_code == 200
        assert list(client.get("/v1/models").json()["tasks"]) == ["fashion"]
        assert classify(client.post, "fashion").status_code == 200
        assert paths_of(client) == {f"/v1/fashion/{verb}" for verb in ("predict", "sets", "explain")}
        schemas = client.get("/docs.json").json()["components"]["schemas"]
        assert not {"TextsRequest", "StreamRequest", "TextExplanationAnswer"} & set(schemas)


def test_a_model_is_described_by_its_task(tmp_path: Path) -> None:
    deploy(tmp_path, "digits", write_digits)
    with service_of(tmp_path) as client:
        described = client.get("/v1/models/digits")
        assert described.json() == client.get("/v1/models").json()["tasks"]["digits"]
        assert described.json()["card"]["labels"] == list(DIGITS.labels)
        assert client.get("/v1/models/digits?x=1").status_code == 422
        missing = client.get("/v1/models/fashion")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
        assert "/v1/digits/predict|sets|explain" in error_of(missing)["message"]


def test_a_task_has_only_the_routes_of_its_bundle(deployed: Path) -> None:
    paths = ("/v1/fashion/stream", "/v1/reviews/stream", "/v1/reviews-stream/predict", "/v1/fashion/classify")
    with service_of(deployed) as client:
        refused = [client.post(path, json={"text": "good"}) for path in paths]
    for answer in refused:
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
        assert "/v1/fashion/predict|sets|explain" in error_of(answer)["message"]
        assert "/v1/reviews-stream/stream" in error_of(answer)["message"]


def test_an_old_route_names_the_new_one(deployed: Path) -> None:
    verbs = ("predict", "sets", "explain")
    new_paths = {f"/v1/images/{verb}": f"/v1/fashion/{verb}" for verb in verbs}
    new_paths |= {f"/v1/texts/{verb}": f"/v1/reviews/{verb}" for verb in verbs}
    new_paths |= {"/v1/texts/stream": "/v1/reviews-stream/stream"}
    with service_of(deployed) as client:
        for old, new in new_paths.items():
            answer = client.post(old, content=PNG, headers=AS_PNG)
            assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
            assert error_of(answer)["message"] == f"this route is {new} now"


def test_an_old_route_without_its_task_names_what_exists(tmp_path: Path) -> None:
    deploy(tmp_path, "digits", write_digits)
    with service_of(tmp_path) as client:
        for old in ("/v1/images/predict", "/v1/texts/stream"):
            answer = client.post(old, content=PNG, headers=AS_PNG)
            assert answer.status_code == 404
            assert error_of(answer)["message"] == "there is no such path; there is /v1/digits/predict|sets|explain"


def test_a_task_may_be_called_like_a_queue(tmp_path: Path) -> None:
    card = tiny_bundles.IMAGE_CARD.model_copy(update={"task": "explanations"})
    deploy(tmp_path, "explanations", partial(tiny_bundles.write_image_bundle, card=card))
    with service_of(tmp_path) as client:
        assert classify(client.post, "explanations").status_code == 200
        assert client.post("/v1/explanations/explain", files={"image": PNG}).status_code == 200


def until(answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not answers():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.process
def test_a_running_service_follows_tasks_that_come_and_go(tmp_path: Path) -> None:
    root = tmp_path / "deployed"
    deploy(root, "fashion")
    with serve(root, tmp_path) as server, httpx.Client(base_url=server.url) as client:
        assert classify(client.post, "digits").status_code == 404
        assert classify(client.post, "fashion").status_code == 200
        deploy(root, "digits", write_digits)
        until(lambda: classify(client.post, "digits").status_code == 200)
        deploy(root, "reviews")
        until(lambda: client.post("/v1/reviews/predict", json={"texts": ["good"]}).status_code == 200)
        assert {"/v1/digits/predict", "/v1/reviews/explain"} <= set(client.get("/docs.json").json()["paths"])
        assert client.get("/readyz").status_code == 200
        (root / "fashion" / "current").unlink()
        until(lambda: classify(client.post, "fashion").status_code == 404)
        message = error_of(classify(client.post, "fashion"))["message"]
        assert "/v1/digits/predict|sets|explain, /v1/reviews/predict|sets|explain" in message
        assert list(client.get("/v1/models").json()["tasks"]) == ["digits", "reviews"]
        assert client.get("/readyz").status_code == 200
        (deploy(root, "fashion", partial(tiny_bundles.write_image_bundle, shift=1.0)) / "model.onnx").unlink()
        until(lambda: client.get("/readyz").status_code == 503)
        tasks = client.get("/readyz").json()["tasks"]
        assert {task: state["state"] for task, state in tasks.items()} == {
            "digits": "ready",
            "fashion": "unavailable",
            "reviews": "ready",
        }
        assert classify(client.post, "fashion").status_code == 503
        assert classify(client.post, "digits").status_code == 200
        counted = 'convoy_predictions_total{label="two",task="digits"'
        until(lambda: counted in client.get("/metrics").text)
