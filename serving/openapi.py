"""The table of routes -> the OpenAPI 3.1 document."""

from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from serving import schemas
from serving.admission import TIMEOUT_S
from serving.errors import CODES, RETRY_AFTER_S
from serving.routes import IMAGE_TYPES, JSON, METHODS, MULTIPART, POLARITIES, ROUTES, RouteSpec

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"
_REQUEST_ID: Json = {
    "description": "the X-Request-Id of the request, or one made for it",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
}
_MODEL_HEADERS: Json = {
    "X-Model-Version": {"description": "the registered version that answered", "schema": {"type": "string"}},
    "X-Model-Digest": {"description": "the digest of its bundle", "schema": {"type": "string"}},
}
_IMAGE_EXPLANATION: list[Json] = [
    {
        "name": "label",
        "in": "query",
        "description": "the label to explain the image for, one of the model's; without it the predicted one",
        "schema": {"type": "string", "minLength": 1},
    },
    {
        "name": "method",
        "in": "query",
        "description": "`contributions`: what each place adds to the label's logit, exactly; `occlusion`: by how much "
        "the probability falls where a square covers a place",
        "schema": {"type": "string", "enum": list(METHODS), "default": METHODS[0]},
    },
]
_DESCRIPTION = """Predictions for images and texts; how much one request may bring stands in the cards, `/v1/models`.

A batch with one bad input is refused as a whole, and the message names it, as `texts[2]`.
A WebSocket at `/v1/texts/stream` reads a text in pieces too: each message is `{"text": ..., "final": ...}`, each answer
a `StreamAnswer` without `state` and `request_id`. After an `ErrorAnswer` the connection ends.
Every answer of 4xx or 5xx is an `ErrorAnswer` with one of these codes:

| code | status | meaning |
|---|---|---|
""" + "\n".join(f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in CODES.items())


def document() -> Json:
    """The whole document, built again at each call."""
    paths: Json = {}
    for route in ROUTES:
        paths[route.path] = {route.method.lower(): _operation(route)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Convoy", "version": version("convoy"), "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": {"X-Request-Id": _REQUEST_ID, **_MODEL_HEADERS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "only where one is set"}},
        },
    }


def _schemas() -> Json:
    answers = (
        schemas.ImagesAnswer,
        schemas.TextsAnswer,
        schemas.ImageSetsAnswer,
        schemas.TextSetsAnswer,
        schemas.ImageExplanationAnswer,
        schemas.TextExplanationAnswer,
        schemas.StreamAnswer,
        schemas.ModelsAnswer,
        schemas.NotReadyAnswer,
    )
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = [
        (answer.__name__, "serialization", TypeAdapter(answer)) for answer in (*answers, schemas.ErrorAnswer)
    ]
    requests = (schemas.TextsRequest, schemas.StreamRequest, schemas.TextToExplain)
    adapters += [(request.__name__, "validation", TypeAdapter(request)) for request in requests]
    _, generated = TypeAdapter.json_schemas(adapters, ref_template=_REFERENCE)
    definitions: Json = generated["$defs"]
    definitions["ErrorDetail"]["properties"]["code"]["enum"] = list(CODES)
    return definitions


def _operation(route: RouteSpec) -> Json:
    operation: Json = {
        "tags": ["models" if route.path.startswith("/v1/") else "service"],
        "summary": route.summary,
        **({"description": route.description} if route.description else {}),
        "operationId": (route.path.strip("/").replace("/", "_").replace(".", "_").replace("_{name}", "") or "page"),
        "parameters": _parameters(route),
        "responses": {"200": _answer(route), **_error_answers(route)},
    }
    if route.guarded:
        operation["security"] = [{}, {"key": []}]
    if route.media_types:
        operation["requestBody"] = {"required": True, "content": _request_content(route)}
    return operation


def _parameters(route: RouteSpec) -> list[Json]:
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
    if route.task == "image":
        polarity = {
            "name": "polarity",
            "in": "query",
            "description": "how the images were made; they are inverted where the model expects the other",
            "schema": {"type": "string", "enum": list(POLARITIES)},
        }
        parameters.append(polarity)
    if route.task == "image" and route.explains:
        parameters += _IMAGE_EXPLANATION
    if route.path_values:
        names = {"type": "string", "enum": list(route.path_values)}
        parameters.append({"name": "name", "in": "path", "required": True, "schema": names})
    return parameters


def _request_content(route: RouteSpec) -> Json:
    if route.media_types == (JSON,):
        return {JSON: {"schema": {"$ref": _REFERENCE.format(model=route.takes)}}}
    files: Json = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    if route.explains:
        files["maxItems"] = 1
    repeat = "one alone" if route.explains else "repeat the field for several"
    fields = {
        "type": "object",
        "properties": {"image": {**files, "description": f"PNG, JPEG or WebP; {repeat}"}},
        "required": ["image"],
        "additionalProperties": False,
    }
    part_types = {"image": {"contentType": ", ".join([*IMAGE_TYPES, "application/octet-stream"])}}
    raw = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in IMAGE_TYPES}
    return {MULTIPART: {"schema": fields, "encoding": part_types}, **raw}


def _answer(route: RouteSpec) -> Json:
    if route.answer == JSON:
        content: Json = {JSON: {"schema": {"type": "object"}}}
    elif "/" in route.answer:
        content = {route.answer: {"schema": {"type": "string"}}}
    else:
        content = {JSON: {"schema": {"$ref": _REFERENCE.format(model=route.answer)}}}
    headers = _headers(200)
    if route.task is not None:
        headers |= {name: {"$ref": f"#/components/headers/{name}"} for name in _MODEL_HEADERS}
    return {"description": "OK", "headers": headers, "content": content}


def _error_answers(route: RouteSpec) -> Json:
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
