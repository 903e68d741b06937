"""What the explaining routes answer: who decided what, so that it adds up, and at a price that others do not pay."""

import asyncio
import base64
import io
import json
import threading

import httpx
import numpy as np
import pytest
import tiny_bundles
from conftest import Server, error_of, layer_with, without_id
from image_files import encode
from PIL import Image
from starlette.testclient import TestClient
from test_serving_overload import Slow
from test_serving_overload import request as send_request

from serving.admission import MOST_EXPLANATIONS
from serving.deployed import Deployed
from serving.kinds.image import Question
from serving.kinds.image import explain as explain_image
from serving.kinds.text import explain as explain_text
from serving.routes import EXPLANATIONS

IMAGE, TEXT = "/v1/fashion/explain", "/v1/reviews/explain"
PNG = tiny_bundles.png(200)
AS_PNG = {"content-type": "image/png"}


def logit(probabilities: dict[str, float], label: str) -> float:
    """Relative to the mean of the labels."""
    logs = {name: np.log(probability) for name, probability in probabilities.items()}
    return float(logs[label] - np.mean(list(logs.values())))


def post_image(client: TestClient, query: str = "", content: bytes = PNG) -> httpx.Response:
    return client.post(IMAGE + query, content=content, headers=AS_PNG)


def test_an_image_is_explained_for_what_is_predicted_and_it_adds_up(client: TestClient) -> None:
    response = post_image(client)
    assert response.status_code == 200 and response.headers["x-model-version"] == "7"
    answer = response.json()
    predicted = client.post("/v1/fashion/predict", content=PNG, headers=AS_PNG).json()
    assert answer["model"] == predicted["model"]
    assert answer["label"] == predicted["predictions"][0]["label"]
    assert answer["probabilities"] == pytest.approx(predicted["predictions"][0]["probabilities"], abs=1e-5)
    assert (answer["method"], answer["size_px"], np.shape(answer["map"])) == ("contributions", 28, (7, 7))
    assert np.sum(answer["map"]) + answer["bias"] == pytest.approx(
        logit(answer["probabilities"], answer["label"]), abs=1e-3
    )
    with Image.open(io.BytesIO(base64.b64decode(answer["overlay"]))) as picture:
        assert (picture.format, picture.size) == ("PNG", (224, 224))


def test_another_label_is_explained_where_it_is_asked_for(client: TestClient) -> None:
    bright, dark = (post_image(client, f"?label={label}").json() for label in ("bright", "dark"))
    assert (bright["label"], dark["label"]) == ("bright", "dark")
    assert bright["probabilities"] == dark["probabilities"]
    assert dark["probability"] == dark["probabilities"]["dark"]
    assert np.array(bright["map"]) == pytest.approx(-np.array(dark["map"]), abs=1e-5)  # as its weights are


def test_occlusion_tells_by_how_much_the_probability_falls(client: TestClient) -> None:
    pixels = np.full((28, 28), 120, dtype=np.uint8)
    pixels[14:, :14] = 255
    answer = post_image(client, "?method=occlusion&label=bright", encode(Image.fromarray(pixels))).json()
    falls = np.array(answer["map"])
    assert falls.shape == (4, 4) and "bias" not in answer
    assert falls[2:, :2].min() > falls[:2].max() > 0
    assert falls.max() <= answer["probability"]


def test_a_form_and_a_raw_body_get_the_same_and_a_warning_is_passed_on(client: TestClient) -> None:
    light = tiny_bundles.encoded("JPEG")
    raw = client.post(IMAGE, content=light, headers={"content-type": "image/jpeg"})
    form = client.post(IMAGE, files={"image": light})
    assert without_id(raw) == without_id(form)
    white = encode(Image.new("L", (28, 28), 255))
    assert "dark_on_light" in post_image(client, content=white).json()["warnings"][0]
    assert "inverted" in post_image(client, "?polarity=dark_on_light").json()["warnings"][0]


def test_a_text_is_explained_word_by_word_where_each_stands_and_it_adds_up(client: TestClient) -> None:
    text = "The GOOD  film, was bad!"
    answer = client.post(TEXT, json={"text": text}).json()
    predicted = client.post("/v1/reviews/predict", json={"texts": [text]}).json()["predictions"][0]
    assert answer["label"] == predicted["label"]
    assert answer["probabilities"] == pytest.approx(predicted["probabilities"], abs=1e-5)
    assert [word["text"] for word in answer["words"]] == ["The", "GOOD", "film", ",", "was", "bad", "!"]
    assert all(text[word["start"] : word["end"]] == word["text"] for word in answer["words"])
    total = sum(word["contribution"] for word in answer["words"]) + answer["bias"]
    assert total == pytest.approx(logit(answer["probabilities"], answer["label"]), abs=1e-4)


def test_after_each_word_stands_what_the_model_says_of_the_text_up_to_it(client: TestClient) -> None:
    words = ["the", "good", "film", "bad", "bad", "film", "good", "good"]
    answer = client.post(TEXT, json={"text": " ".join(words), "label": "positive"}).json()
    after = {
        place: word["probability_after"]
        for place, word in enumerate(answer["words"])
        if word["probability_after"] is not None
    }
    assert len(after) == 5 and max(after) == 7  # as many as the card says, evenly spaced
    texts = [" ".join(words[: place + 1]) for place in after]
    predicted = client.post("/v1/reviews/predict", json={"texts": texts}).json()["predictions"]
    assert list(after.values()) == pytest.approx(
        [prediction["probabilities"]["positive"] for prediction in predicted], abs=1e-6
    )


def test_phrases_are_told_with_their_words_the_strongest_first(client: TestClient) -> None:
    answer = client.post(TEXT, json={"text": "the film was good film", "label": "positive"}).json()
    phrases = answer["phrases"]
    assert len(phrases) == 3
    assert {phrase["text"] for phrase in phrases[:2]} == {"good", "good film"}
    for phrase in phrases:
        words = answer["words"][phrase["first"] : phrase["first"] + phrase["words"]]
        assert " ".join(word["text"] for word in words) == phrase["text"]


def test_of_a_long_text_the_words_that_are_not_read_are_told(client: TestClient) -> None:
    text = " ".join(f"{'good' if place == 10 else 'film'}" for place in range(30))
    answer = client.post(TEXT, json={"text": text}).json()
    assert len(answer["words"]) == 16 and answer["omitted"]["words"] == 14
    omitted = text[answer["omitted"]["start"] : answer["omitted"]["end"]]
    assert omitted.split() == text.split()[4:18] and "good" in omitted
    assert answer["words"][4]["start"] == answer["omitted"]["end"]
    assert "omitted" not in client.post(TEXT, json={"text": "good"}).json()


@pytest.mark.parametrize("text", ["\u0301\u200b", "é👍🏽 good", "a\x00b", "🏴" * 50, "İSTANBUL good", "ﬁlm good"])
def test_any_text_has_words_that_stand_in_it(client: TestClient, text: str) -> None:
    response = client.post(TEXT, json={"text": text})
    assert response.status_code == 200
    for word in response.json()["words"]:
        assert 0 <= word["start"] <= word["end"] <= len(text)
        assert text[word["start"] : word["end"]] == word["text"]


@pytest.mark.parametrize(
    ("query", "content", "status", "code"),
    [
        ("?label=nothing", PNG, 422, "invalid_parameter"),
        ("?label=", PNG, 422, "invalid_parameter"),
        ("?label=dark&label=dark", PNG, 422, "invalid_parameter"),
        ("?method=gradients", PNG, 422, "invalid_parameter"),
        ("?method=occlusion&x=1", PNG, 422, "invalid_parameter"),
        ("?" + "&" * 9, PNG, 422, "invalid_parameter"),
        ("?polarity=any", PNG, 422, "invalid_parameter"),
        ("", b"", 422, "undecodable_image"),
        ("", PNG[:-30], 422, "undecodable_image"),
        ("", bytes(5_000_000), 413, "body_too_large"),
    ],
)
def test_a_bad_question_about_an_image_is_a_clear_4xx(
    client: TestClient, query: str, content: bytes, status: int, code: str
) -> None:
    response = post_image(client, query, content)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


def test_one_image_is_explained_at_a_time(client: TestClient) -> None:
    response = client.post(IMAGE, files=[("image", PNG), ("image", PNG)])
    assert (response.status_code, error_of(response)["code"]) == (422, "too_many_items")
    bad = client.post(IMAGE, files={"image": b"nothing"})
    assert error_of(bad)["message"].startswith("image[0]: ")


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
    [
        (b"{", 400, "malformed_json", "line 1"),
        (b'{"text": "a", "text": "b"}', 400, "malformed_json", "twice"),
        (b"{}", 422, "invalid_request", "text: "),
        (b'{"text": ["a"]}', 422, "invalid_request", "text: "),
        (b'{"texts": ["a"]}', 422, "invalid_request", "text"),
        (b'{"text": "a", "x": 1}', 422, "invalid_request", "the body has `text` and `label` and nothing else"),
        (b'{"text": "a", "label": "x"}', 422, "invalid_request", "no such label"),
        (b'{"text": "a", "label": 1}', 422, "invalid_request", "label: "),
        (b'{"text": " "}', 422, "blank_text", "text: "),
        (b'{"text": "\\ud800"}', 422, "invalid_text", "text: "),
        (json.dumps({"text": "a" * 20_001}).encode(), 413, "text_too_long", "text: "),
    ],
)
def test_a_bad_question_about_a_text_is_a_clear_4xx(
    client: TestClient, body: bytes, status: int, code: str, named: str
) -> None:
    response = client.post(TEXT, content=body, headers={"content-type": "application/json"})
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert named in error_of(response)["message"]
    assert client.post(TEXT + "?x=1", json={"text": "a"}).status_code == 422


def test_explanations_take_no_place_of_predictions_and_more_than_a_few_are_refused(image_model: Deployed) -> None:
    async def crowd() -> tuple[list[int], list[bytes], int]:
        app = Slow()
        layer = layer_with(app, image_model)
        explained = [asyncio.create_task(send_request(layer, path=IMAGE)) for _ in range(MOST_EXPLANATIONS + 3)]
        await asyncio.sleep(0.05)
        predicted = asyncio.create_task(send_request(layer))
        await asyncio.sleep(0.05)
        assert (layer.capacities["fashion"].inside, layer.capacities[EXPLANATIONS].inside) == (1, MOST_EXPLANATIONS)
        app.go.set()
        answers = [await task for task in explained]
        retry = [headers[b"retry-after"] for status, headers in answers if status == 429]
        return [status for status, _ in answers], retry, (await predicted)[0]

    statuses, retry, predicted = asyncio.run(crowd())
    assert statuses == [200] * MOST_EXPLANATIONS + [429] * 3
    assert retry == [b"1"] * 3 and predicted == 200


def test_a_prediction_waits_for_no_explanation(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    free, begun = threading.Event(), threading.Event()

    def endless(*_: object) -> bytes:
        begun.set()
        free.wait(20)
        return b'{"model":{}}'

    monkeypatch.setattr("serving.kinds.text.explain", endless)
    answers: list[httpx.Response] = []
    asks = threading.Thread(target=lambda: answers.append(client.post(TEXT, json={"text": "good"})))
    asks.start()
    try:
        assert begun.wait(10)
        large = [tiny_bundles.png(200, (900, 900))] * 2  # which a thread decodes
        assert client.post("/v1/fashion/predict", files=[("image", image) for image in large]).status_code == 200
        assert client.post("/v1/reviews/predict", json={"texts": ["good"] * 8}).status_code == 200
        late = client.post(TEXT, json={"text": "good"}, headers={"x-request-timeout-ms": "50"})
        assert (late.status_code, error_of(late)["code"]) in ((504, "deadline_exceeded"), (429, "overloaded"))
        assert not answers
    finally:
        free.set()
        asks.join()
    assert answers[0].status_code == 200


def test_explanations_are_counted_apart_from_predictions(server: Server) -> None:
    def total(name: str) -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))

    names = ("convoy_explanation_seconds_count", "convoy_answer_seconds_count", "convoy_predictions_total")
    before = [total(name) for name in names]
    assert httpx.post(server.url + IMAGE, content=PNG, headers=AS_PNG).status_code == 200
    assert [total(name) - was for name, was in zip(names, before, strict=True)] == [1, 0, 0]


def test_the_functions_answer_without_any_http(image_model: Deployed, text_model: Deployed) -> None:
    image = json.loads(explain_image(image_model, PNG, Question(label="dark", method="occlusion")))
    text = json.loads(explain_text(text_model, "good", None))
    assert (image["label"], text["label"]) == ("dark", "positive")
    (word,) = text["words"]
    assert word["probability_after"] == pytest.approx(text["probability"], abs=1e-5)
