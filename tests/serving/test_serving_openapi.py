"""The document at /docs.json against the real routes and real answers, good and bad."""

from typing import Any

import httpx
import pytest
import tiny_bundles
from conftest import error_of, tiny_models
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from serving.errors import CODES
from serving.openapi import document
from serving.routes import Route

BY_PATH = tiny_models().by_path
ROUTES: list[Route] = list(dict.fromkeys(BY_PATH.values()))
DOCUMENT = document(ROUTES)
PNG = tiny_bundles.png(50)
JSON_TYPE = {"content-type": "application/json"}


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def check(response: httpx.Response, method: str, path: str) -> None:
    """The status, the content type, the headers and the body of an answer are what the document says."""
    answer = DOCUMENT["paths"][path][method.lower()]["responses"][str(response.status_code)]
    content = answer["content"]
    media_type = response.headers["content-type"].split(";")[0]
    assert media_type in content or "*/*" in content
    assert {name.lower() for name in answer["headers"]} <= set(response.headers)
    if media_type == "application/json":
        validator(content[media_type]["schema"]).validate(response.json())


def test_the_served_document_is_the_generated_one(client: TestClient) -> None:
    assert client.get("/docs.json").json() == DOCUMENT


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            names = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return names.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    assert len(references(DOCUMENT)) > 5
    for reference in references(DOCUMENT):
        target: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_route_of_the_app_is_in_the_table_and_so_in_the_document() -> None:
    table = {(route.method, route.path) for route in ROUTES}
    documented = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert table == documented
    assert len(table) == len(ROUTES) and {route.task for route in ROUTES} == {None, *tiny_models().by_task}
    identifiers = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize("path", [path for path in BY_PATH if BY_PATH[path].method == "GET" and path != "/metrics"])
def test_every_documented_get_is_answered_as_documented(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    check(response, "GET", BY_PATH[path].path)


def test_every_code_of_the_table_is_documented_somewhere_or_belongs_to_no_route() -> None:
    documented = {code for route in ROUTES for code in route.error_codes}
    assert set(CODES) - documented == {"method_not_allowed"}


@pytest.mark.parametrize(
    "files",
    [[("image", PNG)], [("image", PNG), ("image", tiny_bundles.png(255, (90, 80)))]],
    ids=["one", "two"],
)
def test_good_answers_about_images_match_the_document(client: TestClient, files: list[tuple[str, bytes]]) -> None:
    for path in ("/v1/fashion/predict", "/v1/fashion/sets"):
        response = client.post(path, files=files)
        assert response.status_code == 200
        check(response, "POST", path)


@pytest.mark.parametrize("query", ["", "?method=occlusion", "?label=bright&method=contributions"])
def test_explanations_of_images_match_the_document(client: TestClient, query: str) -> None:
    response = client.post(f"/v1/fashion/explain{query}", files={"image": PNG})
    assert response.status_code == 200
    check(response, "POST", "/v1/fashion/explain")


@pytest.mark.parametrize("text", ["good", "bad " * 50, "\u0301", "the good film, and bad!"])
def test_explanations_of_texts_match_the_document_and_so_does_the_request(client: TestClient, text: str) -> None:
    content = DOCUMENT["paths"]["/v1/reviews/explain"]["post"]["requestBody"]["content"]
    for request in ({"text": text}, {"text": text, "label": "positive"}, {"text": text, "label": None}):
        validator(content["application/json"]["schema"]).validate(request)
        response = client.post("/v1/reviews/explain", json=request)
        assert response.status_code == 200
        check(response, "POST", "/v1/reviews/explain")


def test_good_answers_about_texts_match_the_document_and_so_does_the_request(client: TestClient) -> None:
    request = {"texts": ["good", "bad " * 50]}
    content = DOCUMENT["paths"]["/v1/reviews/predict"]["post"]["requestBody"]["content"]
    validator(content["application/json"]["schema"]).validate(request)
    for path in ("/v1/reviews/predict", "/v1/reviews/sets"):
        response = client.post(path, json=request)
        assert response.status_code == 200
        check(response, "POST", path)


@pytest.mark.parametrize(
    "request_", [{}, {"texts": []}, {"texts": [" "]}, {"texts": [1]}, {"texts": ["a"], "x": 1}, []]
)
def test_what_the_document_forbids_is_refused(client: TestClient, request_: Any) -> None:
    content = DOCUMENT["paths"]["/v1/reviews/predict"]["post"]["requestBody"]["content"]
    assert not validator(content["application/json"]["schema"]).is_valid(request_)
    assert client.post("/v1/reviews/predict", json=request_).status_code == 422


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/fashion/predict", {"content": b"x", "headers": {"content-type": "image/png"}}),
        ("/v1/fashion/predict", {"content": b"x", "headers": {"content-type": "image/gif"}}),
        ("/v1/fashion/predict", {"content": bytes(5_000_000), "headers": {"content-type": "image/png"}}),
        ("/v1/fashion/predict", {"files": {"image": (None, "http://a")}}),
        ("/v1/fashion/predict", {"files": {"other": PNG}}),
        ("/v1/fashion/predict", {"files": [("image", PNG)] * 9}),
        ("/v1/fashion/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
        ("/v1/fashion/predict?a=b", {"files": {"image": PNG}}),
        ("/v1/fashion/sets", {"content": b"x", "headers": {"content-type": "image/png"}}),
        ("/v1/reviews/sets", {"json": {"texts": [" "]}}),
        ("/v1/fashion/explain", {"files": [("image", PNG)] * 2}),
        ("/v1/fashion/explain?label=none", {"files": {"image": PNG}}),
        ("/v1/reviews/explain", {"json": {"text": " "}}),
        ("/v1/reviews/explain", {"json": {"text": "good", "label": "none"}}),
        ("/v1/reviews/predict", {"content": b"{", "headers": JSON_TYPE}),
        ("/v1/reviews/predict", {"json": {"texts": [" "]}}),
        ("/v1/reviews/predict", {"json": {"texts": ["a" * 30_000]}}),
        ("/v1/reviews/predict", {"content": b"{}", "headers": {**JSON_TYPE, "content-encoding": "gzip"}}),
        ("/v1/reviews/predict", {"content": b"{}", "headers": {**JSON_TYPE, "x": "a" * 20_000}}),
    ],
)
def test_bad_answers_match_the_document_and_their_code_is_documented(
    client: TestClient, path: str, options: dict[str, Any]
) -> None:
    response = client.post(path, **options)
    assert 400 <= response.status_code < 500
    path = path.partition("?")[0]
    check(response, "POST", path)
    assert error_of(response)["code"] in BY_PATH[path].error_codes
