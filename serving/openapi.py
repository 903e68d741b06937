"""Routes -> the OpenAPI 3.1 document."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from serving.deployed import Unavailable
from serving.errors import CODES, JSON, RETRY_AFTER_S, Json
from serving.request import TIMEOUT_S
from serving.routes import Route
from serving.schemas import ErrorAnswer, NotReadyAnswer

_REFERENCE = "#/components/schemas/{model}"
_REQUEST_ID: Json = {
    "description": "the X-Request-Id of the request, or one made for it",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_MODEL_HEADERS: Json = {
    "X-Model-Version": {"description": "the registered version that answered", "schema": {"type": "string"}},
    "X-Model-Digest": {"description": "the digest of its bundle", "schema": {"type": "string"}},
}
_DESCRIPTION = """Predictions for what is deployed; how much one request may bring stands in the cards, `/v1/models`.

A batch with one bad input is refused as a whole, and the message names it, as `texts[2]`.
A WebSocket at `/v1/<task>/stream`, where there is one, reads a text in pieces too: each message is
`{"text": ..., "final": ...}`, each answer a `StreamAnswer` without `state` and `request_id`. After an `ErrorAnswer` the
connection ends.
Every answer of 4xx or 5xx is an `ErrorAnswer` with one of these codes:

| code | status | meaning |
|---|---|---|
""" + "\n".join(f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in CODES.items())


def document(routes: Sequence[Route]) -> Json:
    """The whole document, built again at each call; of a task that cannot be loaded nobody knows what it would take."""
    known = [route for route in routes if not isinstance(route.model, Unavailable)]
    paths: Json = {}
    for route in known:
        paths[route.path] = {route.method.lower(): _operation(route)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Convoy", "version": version("convoy"), "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(known),
            "headers": {"X-Request-Id": _REQUEST_ID, **_MODEL_HEADERS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "only where one is set"}},
        },
    }


def _schemas(routes: Sequence[Route]) -> Json:
    answers = {route.answer for route in routes if not isinstance(route.answer, str)} | {ErrorAnswer, NotReadyAnswer}
    requests = {route.takes for route in routes if route.takes is not None}
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = [
        (kind.__name__, mode, TypeAdapter(kind))
        for mode, kinds in (("serialization", answers), ("validation", requests))
        for kind in sorted(kinds, key=lambda kind: kind.__name__)
    ]
    _, generated = TypeAdapter.json_schemas(adapters, ref_template=_REFERENCE)
    definitions: Json = generated["$defs"]
    definitions["ErrorDetail"]["properties"]["code"]["enum"] = list(CODES)
    return definitions


def _operation(route: Route) -> Json:
    operation: Json = {
        "tags": [route.task or ("models" if route.guarded else "service")],
        "summary": route.summary,
        **({"description": route.description} if route.description else {}),
        "operationId": re.sub("[/.]", "_", route.path.strip("/").removesuffix("/{name}")) or "page",
        "parameters": _parameters(route),
        "responses": {"200": _answer(route), **_error_answers(route)},
    }
    if route.guarded:
        operation["security"] = [{}, {"key": []}]
    if route.media_types:
        operation["requestBody"] = {"required": True, "content": _request_content(route)}
    return operation


def _parameters(route: Route) -> list[Json]:
    request_id: Json = {
        "name": "X-Request-Id",
        "in": "header",
        "description": "comes back in the answer; another one is made where it is longer or has other characters",
        "schema": {"type": "string"},
    }
    parameters = [request_id]
    if route.task is not None:
        timeout = {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "description": f"how long you wait; after that nothing is computed for you. At most {TIMEOUT_S * 1000}",
            "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        }
        parameters.append(timeout)
    parameters += route.parameters
    if route.path_values:
        names = {"type": "string", "enum": list(route.path_values)}
        parameters.append({"name": "name", "in": "path", "required": True, "schema": names})
    return parameters


def _request_content(route: Route) -> Json:
    if route.takes is None:
        return route.content or {}
    return {JSON: {"schema": {"$ref": _REFERENCE.format(model=route.takes.__name__)}}}


def _answer(route: Route) -> Json:
    if route.answer == JSON:
        content: Json = {JSON: {"schema": {"type": "object"}}}
    elif isinstance(route.answer, str):
        content = {route.answer: {"schema": {"type": "string"}}}
    else:
        content = {JSON: {"schema": {"$ref": _REFERENCE.format(model=route.answer.__name__)}}}
    headers = _headers(200)
    if route.task is not None:
        headers |= {name: {"$ref": f"#/components/headers/{name}"} for name in _MODEL_HEADERS}
    return {"description": "OK", "headers": headers, "content": content}


def _error_answers(route: Route) -> Json:
    codes_by_status: dict[int, list[str]] = {}
    for code in route.error_codes:
        codes_by_status.setdefault(CODES[code][0], []).append(code)
    return {
        str(status): {
            "description": "; ".join(f"{code}: {CODES[code][1]}" for code in codes),
            "headers": _headers(status),
            "content": {JSON: {"schema": {"$ref": _REFERENCE.format(model=_error_schema(codes))}}},
        }
        for status, codes in sorted(codes_by_status.items())
    }


def _error_schema(codes: list[str]) -> str:
    return "NotReadyAnswer" if "not_ready" in codes else "ErrorAnswer"


def _headers(status: int) -> Json:
    headers: Json = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status in RETRY_AFTER_S:
        headers["Retry-After"] = {"description": "seconds", "schema": {"type": "integer"}}
    return headers
