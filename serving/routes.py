"""The one table of routes: the middleware checks by it, the app answers by it, the OpenAPI document describes it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import bentoml._internal.server as bentoml_server

from convoy.core.paths import Task
from convoy.kinds.image.preprocessing import Polarity

STATIC_FOLDER = Path(bentoml_server.__file__).parent / "static_content"  # BentoML's own copy of Swagger UI
STATIC_NAMES = tuple(sorted(path.name for path in STATIC_FOLDER.iterdir()))
POLARITIES: tuple[Polarity, ...] = get_args(Polarity)
# How an image is explained: by the terms of the network's sum, or by what a covering square changes.
Method = Literal["contributions", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)

MULTIPART = "multipart/form-data"
JSON = "application/json"
EXPLANATIONS = "explanation"
PIECES = "text-stream-piece"  # of the WebSockets
# image/jpg is not registered, and many clients send it.
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/jpg")

# What any route can answer.
_ANYWHERE = ("malformed_request", "unsupported_media_type", "headers_too_large", "internal_error", "deadline_exceeded")
_OWN = (*_ANYWHERE, "unauthorized", "forbidden_host", "forbidden_origin")
_WITH_BODY = (
    *_OWN,
    "request_timeout",
    "body_too_large",
    "overloaded",
    "invalid_parameter",
    "too_many_items",
    "model_unavailable",
)
_STATIC = (*_ANYWHERE, "not_found")
_IMAGE = ("malformed_multipart", "image_too_large", "image_missing", "not_a_file", "undecodable_image", "unknown_field")
_TEXT = ("malformed_json", "text_too_long", "blank_text", "invalid_request", "invalid_text")
_STREAM = (
    "malformed_json",
    "invalid_request",
    "invalid_text",
    "text_too_long",
    "word_too_long",
    "stream_too_long",
    "state_invalid",
    "state_outdated",
)


@dataclass(frozen=True)
class RouteSpec:
    """One method of one path."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    answer: str  # the schema of a 200 in schemas.py, or the media type where it is not JSON
    error_codes: tuple[str, ...] = _ANYWHERE
    task: Task | None = None  # set where the body goes to a model, whose card then limits it
    media_types: tuple[str, ...] = ()
    takes: str = "TextsRequest"  # the schema of a JSON body
    path_values: tuple[str, ...] = ()  # all values of {name} in `path`
    explains: bool = False  # one input, and several runs of the model: with a capacity of its own
    description: str = ""  # what the document says beside the summary

    @property
    def guarded(self) -> bool:
        """Whether it uses or describes models: Host, Origin and key are checked."""
        return self.path.startswith("/v1/")

    @property
    def queue(self) -> str:
        """Whose capacity it takes: that of its task, or that of all explanations."""
        assert self.task is not None
        return EXPLANATIONS if self.explains else self.task

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the path answers; Starlette gives every GET its HEAD."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    @property
    def paths(self) -> tuple[str, ...]:
        """All its paths, with the values of {name}."""
        return tuple(self.path.replace("{name}", value) for value in self.path_values) or (self.path,)


PREDICT_IMAGES = RouteSpec(
    "POST",
    "/v1/images/predict",
    "Classify one image or several",
    "ImagesAnswer",
    (*_WITH_BODY, *_IMAGE),
    task="image",
    media_types=(MULTIPART, *IMAGE_TYPES),
)
PREDICT_TEXTS = RouteSpec(
    "POST",
    "/v1/texts/predict",
    "Classify one text or several",
    "TextsAnswer",
    (*_WITH_BODY, *_TEXT),
    task="text",
    media_types=(JSON,),
)
_SETS = (
    "For data like ours a set holds the true label as often as `coverage` says: over all inputs together, or, where "
    "the card has a threshold per label, for the inputs of each label. The most probable label is always in. Several "
    "labels mean that the model cannot tell them apart; a set says nothing about inputs that are unlike the data."
)
SETS_IMAGES = replace(
    PREDICT_IMAGES,
    path="/v1/images/sets",
    summary="The likely labels of one image or several",
    answer="ImageSetsAnswer",
    description=_SETS,
    error_codes=(*PREDICT_IMAGES.error_codes, "sets_uncalibrated"),
)
SETS_TEXTS = replace(
    PREDICT_TEXTS,
    path="/v1/texts/sets",
    summary="The likely labels of one text or several",
    answer="TextSetsAnswer",
    description=_SETS,
    error_codes=(*PREDICT_TEXTS.error_codes, "sets_uncalibrated"),
)
EXPLAIN_IMAGE = replace(
    PREDICT_IMAGES,
    path="/v1/images/explain",
    summary="Which places of an image speak for its label",
    answer="ImageExplanationAnswer",
    error_codes=(*PREDICT_IMAGES.error_codes, "explanation_missing"),
    explains=True,
    description="Costs about 5 times a prediction, by occlusion about 40 times.",
)
EXPLAIN_TEXT = replace(
    PREDICT_TEXTS,
    path="/v1/texts/explain",
    summary="Which words of a text speak for its label",
    answer="TextExplanationAnswer",
    error_codes=(*(code for code in PREDICT_TEXTS.error_codes if code != "too_many_items"), "explanation_missing"),
    takes="TextToExplain",
    explains=True,
    description="Costs about 15 times a prediction: the model reads the text anew up to some of its words.",
)
# The same path answers WebSockets, which OpenAPI cannot describe; serving.stream_websocket does.
STREAM_TEXTS = RouteSpec(
    "POST",
    "/v1/texts/stream",
    "Read a text in pieces; what is known after each word",
    "StreamAnswer",
    (*(code for code in _WITH_BODY if code != "too_many_items"), *_STREAM),
    task="text-stream",
    media_types=(JSON,),
    takes="StreamRequest",
)
MODELS = RouteSpec(
    "GET",
    "/v1/models",
    "The card and the release of each model, and whether requests are logged",
    "ModelsAnswer",
    (*_OWN, "invalid_parameter"),
)
# Open to all: a browser has no key before it has read them, and they show no data.
DOCUMENT = RouteSpec("GET", "/docs.json", "This document", JSON)
PAGE = RouteSpec("GET", "/", "This document as a page to try the routes", "text/html")
METRICS = RouteSpec("GET", "/metrics", "Prometheus metrics", "text/plain")
# Answered by BentoML itself.
BUILT_IN = (
    RouteSpec("GET", "/livez", "200 while the process lives", "text/plain"),
    RouteSpec("GET", "/healthz", "The same as /livez", "text/plain"),
    RouteSpec("GET", "/readyz", "200 when every model is loaded and warm", "text/plain", (*_ANYWHERE, "not_ready")),
    METRICS,
    RouteSpec(
        "GET",
        "/static_content/{name}",
        "The files of the page",
        "*/*",
        (*_ANYWHERE, "not_found"),
        path_values=STATIC_NAMES,
    ),
)
ROUTES = (
    PREDICT_IMAGES,
    PREDICT_TEXTS,
    SETS_IMAGES,
    SETS_TEXTS,
    EXPLAIN_IMAGE,
    EXPLAIN_TEXT,
    STREAM_TEXTS,
    MODELS,
    *BUILT_IN,
    DOCUMENT,
    PAGE,
)
BY_PATH = {path: route for route in ROUTES for path in route.paths}
