"""The whole service as an ASGI app: every request of a kind -> its status and its error code."""

import json
from typing import Any

import httpx
import pytest
import tiny_bundles
from conftest import error_of, tiny_models
from image_files import encode, png_of
from PIL import Image
from starlette.testclient import TestClient

from serving.models import METRICS

IMAGES = "/v1/fashion/predict"
TEXTS = "/v1/reviews/predict"
IMAGE_SETS = "/v1/fashion/sets"
TEXT_SETS = "/v1/reviews/sets"
PNG = tiny_bundles.png(200)


def encoded(form: str, mode: str = "L", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    return encode(Image.new(mode, size), form, **options)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to hold this many pixels."""
    return png_of(width, height, data=bytes(99))


def post_raw(client: TestClient, body: bytes, content_type: str = "image/png", query: str = "") -> httpx.Response:
    return client.post(IMAGES + query, content=body, headers={"content-type": content_type})


def post_json(
    client: TestClient, body: bytes, content_type: str = "application/json", **headers: str
) -> httpx.Response:
    return client.post(TEXTS, content=body, headers={"content-type": content_type, **headers})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (PNG, "image/png"),
        (encoded("JPEG"), "image/jpeg"),
        (encoded("JPEG"), "image/jpg"),
        (encoded("JPEG", "CMYK"), "image/jpeg"),
        (encoded("WEBP", "RGB"), "image/webp"),
        (encoded("PNG", "RGBA"), "image/png"),
        (encoded("PNG", "I;16"), "image/png"),
        (encoded("PNG", "1", (1, 1)), "image/png"),
        (encoded("PNG", "P", (1, 500)), "IMAGE/PNG; name=a"),
        (encoded("JPEG"), "image/png"),  # the bytes decide
    ],
    ids=range(10),
)
def test_a_raw_image_of_any_kind_is_classified(client: TestClient, body: bytes, content_type: str) -> None:
    response = post_raw(client, body, content_type)
    assert response.status_code == 200, response.text
    assert len(response.json()["predictions"]) == 1


def test_a_raw_body_a_single_file_and_a_batch_give_the_same_predictions(client: TestClient) -> None:
    images = [tiny_bundles.png(0), tiny_bundles.png(120), encoded("JPEG", "RGB", (200, 100))]
    raw = [post_raw(client, image).json()["predictions"][0] for image in images]
    single = [client.post(IMAGES, files={"image": image}).json()["predictions"][0] for image in images]
    batch = client.post(IMAGES, files=[("image", image) for image in images]).json()["predictions"]
    assert raw == single and [row["label"] for row in raw] == [row["label"] for row in batch]


def test_texts_are_classified_in_order(client: TestClient) -> None:
    response = client.post(TEXTS, json={"texts": ["bad bad", "good film", "bad"]})
    assert [row["label"] for row in response.json()["predictions"]] == ["negative", "positive", "negative"]
    assert response.json()["model"]["name"] == "convoy-reviews"


def test_a_set_holds_the_labels_of_the_prediction_that_are_likely_enough(client: TestClient) -> None:
    options: dict[str, dict[str, Any]] = {
        IMAGES: {"files": [("image", tiny_bundles.png(brightness)) for brightness in range(0, 256, 40)]},
        TEXTS: {"json": {"texts": ["the good film", "bad", "film", "good bad", "the " * 40]}},
    }
    sizes = set()
    for path, request in options.items():
        card = tiny_bundles.IMAGE_CARD if path == IMAGES else tiny_bundles.TEXT_CARD
        answer = client.post(path, **request).json()
        sets = client.post(path.replace("predict", "sets"), **request).json()
        assert (sets["model"], sets["coverage"]) == (answer["model"], card.sets.coverage)
        for label_set, full in zip(sets["predictions"], answer["predictions"], strict=True):
            likely = {name: p for name, p in full["probabilities"].items() if p >= card.sets.threshold}
            assert label_set["probabilities"] == likely
            assert label_set["labels"] == sorted(likely, key=lambda name: -likely[name])
            assert label_set.get("truncated") == full.get("truncated")
            sizes.add(len(label_set["labels"]))
    assert sizes == {1, 2}


def test_sets_take_and_refuse_what_predictions_do(client: TestClient) -> None:
    requests: list[tuple[str, dict[str, Any]]] = [
        (IMAGE_SETS, {"content": PNG, "headers": {"content-type": "image/png"}}),
        (IMAGE_SETS + "?polarity=dark_on_light", {"files": {"image": encoded("JPEG", "RGB", (900, 900))}}),
        (IMAGE_SETS + "?polarity=none", {"files": {"image": PNG}}),
        (IMAGE_SETS, {"content": b"x", "headers": {"content-type": "image/png"}}),
        (IMAGE_SETS, {"content": PNG, "headers": {"content-type": "image/gif"}}),
        (IMAGE_SETS, {"content": bytes(5_000_000), "headers": {"content-type": "image/png"}}),
        (IMAGE_SETS, {"files": [("image", PNG)] * 9}),
        (TEXT_SETS, {"json": {"texts": ["good", "bad"]}}),
        (TEXT_SETS, {"json": {"texts": ["good", " "]}}),
        (TEXT_SETS, {"json": {"texts": ["good"] * 9}}),
        (TEXT_SETS, {"content": b"{", "headers": {"content-type": "application/json"}}),
        (TEXT_SETS + "?x=1", {"json": {"texts": ["good"]}}),
    ]
    for path, options in requests:
        sets, predictions = client.post(path, **options), client.post(path.replace("sets", "predict"), **options)
        assert sets.status_code == predictions.status_code
        if sets.status_code != 200:
            assert error_of(sets) == {**error_of(predictions), "request_id": error_of(sets)["request_id"]}
        else:
            assert len(sets.json()["predictions"]) == len(predictions.json()["predictions"])


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "image/png", 422, "undecodable_image"),
        (PNG[:40], "image/png", 422, "undecodable_image"),
        (PNG[:-30], "image/png", 422, "undecodable_image"),
        (b"just text", "image/png", 422, "undecodable_image"),
        (b"http://127.0.0.1:1/a.png", "image/png", 422, "undecodable_image"),
        (encoded("GIF"), "image/png", 422, "undecodable_image"),
        (encoded("TIFF"), "image/png", 422, "undecodable_image"),
        (encoded("BMP"), "image/png", 422, "undecodable_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png", 422, "undecodable_image"),
        (bomb(13_000, 13_000), "image/png", 413, "image_too_large"),
        (bomb(100_000, 100_000), "image/png", 413, "image_too_large"),
        (bomb(0, 7), "image/png", 422, "undecodable_image"),
        (PNG, "", 415, "unsupported_media_type"),
        (PNG, "image/gif", 415, "unsupported_media_type"),
        (PNG, "image/*", 415, "unsupported_media_type"),
        (PNG, "application/octet-stream", 415, "unsupported_media_type"),
        (PNG, "application/json", 415, "unsupported_media_type"),
        (PNG, "application/vnd.bentoml+pickle", 415, "unsupported_media_type"),
        (PNG, "multipart/form-data", 400, "malformed_multipart"),
        (PNG, "multipart/form-data; boundary=x", 400, "malformed_multipart"),
    ],
    ids=range(20),
)
def test_a_bad_raw_image_is_a_clear_4xx(
    client: TestClient, body: bytes, content_type: str, status: int, code: str
) -> None:
    response = post_raw(client, body, content_type)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


def test_a_bad_image_in_a_batch_is_named_and_nothing_is_answered(client: TestClient) -> None:
    response = client.post(IMAGES, files=[("image", PNG), ("image", b"nonsense"), ("image", PNG)])
    assert (response.status_code, error_of(response)["code"]) == (422, "undecodable_image")
    assert error_of(response)["message"].startswith("image[1]: ")


def test_a_form_field_that_is_a_url_is_not_a_file(client: TestClient) -> None:
    response = client.post(IMAGES, files={"image": (None, b"http://127.0.0.1:1/a.png")})
    assert (response.status_code, error_of(response)["code"]) == (422, "not_a_file")


@pytest.mark.parametrize(
    "query",
    [
        "?polarity=",
        "?polarity=any",
        "?Polarity=dark_on_light",
        "?x=1",
        "?polarity=dark_on_light&polarity=dark_on_light",
        "?polarity=dark_on_light&x=1",
        "?polarity",
        "?" + "&" * 3 + "a=b",
        "?%ff=1",
        "?" + "a=1&" * 500,
    ],
)
def test_a_query_that_is_not_a_polarity_is_refused(client: TestClient, query: str) -> None:
    response = post_raw(client, PNG, query=query)
    assert (response.status_code, error_of(response)["code"]) == (422, "invalid_parameter")
    assert client.post(TEXTS + "?polarity=dark_on_light", json={"texts": ["good"]}).status_code == 422
    assert client.get("/v1/models?x=1").status_code == 422


def test_the_polarity_parameter_changes_the_answer(client: TestClient) -> None:
    answers = [post_raw(client, PNG, query=query).json()["predictions"] for query in ("?polarity=light_on_dark", "")]
    assert answers[0] == answers[1]
    assert post_raw(client, PNG, query="?polarity=dark_on_light").json()["predictions"] != answers[0]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_json"),
        (b'{"texts": [NaN]}', "application/json", 400, "malformed_json"),
        (b'{"texts": ["\xff"]}', "application/json", 400, "malformed_json"),
        (b'{"texts": []}', "application/json", 422, "invalid_request"),
        (b'{"texts": ["  "]}', "application/json", 422, "blank_text"),
        (b'{"texts": [""]}', "application/json", 422, "blank_text"),
        (b'{"texts": ["\\ud800"]}', "application/json", 422, "invalid_text"),
        (json.dumps({"texts": ["a" * 20_001]}).encode(), "application/json", 413, "text_too_long"),
        (json.dumps({"texts": ["a"] * 9}).encode(), "application/json", 422, "too_many_items"),
        (b'{"texts": ["good"]}', "text/plain", 415, "unsupported_media_type"),
        (b'{"texts": ["good"]}', "", 415, "unsupported_media_type"),
        (b'{"texts": ["good"]}', "application/json; charset=utf-16", 415, "unsupported_media_type"),
        (b'{"texts": ["good"]}', "application/vnd.bentoml+pickle", 415, "unsupported_media_type"),
        (b'{"texts": ["good"]}', "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b'{"texts": ["' + b"a" * 1_000_000 + b'"]}', "application/json", 413, "body_too_large"),
    ],
    ids=range(15),
)
def test_a_bad_text_request_is_a_clear_4xx(
    client: TestClient, body: bytes, content_type: str, status: int, code: str
) -> None:
    response = post_json(client, body, content_type)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
def test_utf_8_may_be_named(client: TestClient, content_type: str) -> None:
    assert post_json(client, '{"texts": ["gööd"]}'.encode(), content_type).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip"])
def test_a_compressed_body_is_refused_on_every_route(client: TestClient, encoding: str) -> None:
    for path in (IMAGES, TEXTS):
        response = client.post(path, content=b"x", headers={"content-encoding": encoding})
        assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")
    identity = client.post(TEXTS, json={"texts": ["good"]}, headers={"content-encoding": "Identity"})
    assert identity.status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/", "/v1/models", "/docs.json", IMAGES, TEXT_SETS])
def test_a_pickle_is_refused_on_every_route(client: TestClient, path: str) -> None:
    method = "POST" if path in (IMAGES, TEXT_SETS) else "GET"
    response = client.request(method, path, content=b"x", headers={"content-type": "application/vnd.bentoml+pickle"})
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/fashion/predict/",
        "//v1/models",
        "/schema.json",
        "/v1/fashion/predict%00",
        "/docs",
        "/predict",
        "/static_content/",
        "/static_content/..%2f..%2fapp.py",
        "/static_content/%2e%2e/app.py",
        "/" + "a" * 10_000,
    ],
)
def test_a_path_that_does_not_exist_is_404_and_never_a_redirect(client: TestClient, path: str) -> None:
    response = client.get(path, follow_redirects=False)
    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", IMAGES, "POST"),
        ("HEAD", TEXTS, "POST"),
        ("OPTIONS", TEXTS, "POST"),
        ("PUT", IMAGES, "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("TRACE", "/", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_with_allow(client: TestClient, method: str, path: str, allowed: str) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert method == "HEAD" or error_of(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz", "/", "/v1/models", "/docs.json"])
def test_every_answer_has_a_request_id_and_head_answers_where_get_does(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"x-request-id": "trace-1.A_b"})
    assert (response.status_code, response.headers["x-request-id"]) == (200, "trace-1.A_b")
    assert client.head(path).status_code == 200
    assert len(client.get(path).headers["x-request-id"]) == 16


@pytest.mark.parametrize(
    "path", sorted({*tiny_models().by_path} - {METRICS.path})
)  # which a running server alone answers
def test_every_answer_keeps_browsers_from_guessing_types(client: TestClient, path: str) -> None:
    answers = [client.get(path), client.post(path, content=b"{}"), client.put(path), client.get(f"{path}/nowhere")]
    assert [answer.headers.get_list("x-content-type-options") for answer in answers] == [["nosniff"]] * 4


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 65, "<script>", "a\tb", 'a"b'])
def test_a_request_id_that_could_do_harm_is_replaced(client: TestClient, request_id: str) -> None:
    response = client.get("/nowhere", headers={"x-request-id": request_id})
    assert error_of(response)["request_id"] != request_id


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([(f"x-{index}", "1") for index in range(100)], 431, "headers_too_large"),
        ([("x-long", "a" * 20_000)], 431, "headers_too_large"),
        ([("content-type", "image/png"), ("content-type", "application/json")], 400, "malformed_request"),
        ([("content-length", "5"), ("content-length", "6")], 400, "malformed_request"),
        ([("transfer-encoding", "chunked"), ("content-length", "6")], 400, "malformed_request"),
        ([("content-type", "image/png"), ("content-length", "-1")], 400, "malformed_request"),
        ([("content-type", "image/png"), ("content-length", "9" * 30)], 400, "malformed_request"),
    ],
)
def test_headers_out_of_order_are_refused(
    client: TestClient, headers: list[tuple[str, str]], status: int, code: str
) -> None:
    response = client.post(IMAGES, headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


def test_an_unexpected_exception_is_a_500_that_tells_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("onnxruntime at /secret/path")

    monkeypatch.setattr("serving.kinds.image.prepare", fail)
    response = post_raw(client, PNG)
    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    assert "onnx" not in response.text and "secret" not in response.text
    assert error_of(response)["request_id"] in caplog.text
    monkeypatch.undo()
    assert post_raw(client, PNG).status_code == 200


def test_the_models_route_shows_cards_and_releases(client: TestClient) -> None:
    models = client.get("/v1/models").json()
    models = models["tasks"]
    assert models["fashion"]["card"] == tiny_bundles.IMAGE_CARD.model_dump(mode="json")
    assert (models["reviews"]["state"], models["reviews"]["release"]["version"]) == ("ready", "7")


def test_the_page_loads_nothing_from_elsewhere_and_all_its_files_are_there(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "http://" not in page.text and "https://" not in page.text
    files = [part.split('"')[0] for part in page.text.split('="./')[1:]]
    assert len(files) >= 5
    for file in files:
        assert client.get(f"/{file}").status_code == 200
    assert './docs.json"' in client.get("/static_content/swagger-initializer.js").text
