"""The Starlette app with Convoy's own routes; every handler turns an Exchange into bytes or a Fault."""

import json
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl

import anyio.to_thread
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from convoy.layout import Task
from convoy.preprocessing.image import Polarity
from convoy.preprocessing.rejection import InputRejected
from serving import openapi
from serving.deployed import Deployed, DeployedModels
from serving.exchange import Exchange
from serving.faults import Fault, from_rejection
from serving.multipart import read_images
from serving.predictions import (
    QUICK_BYTES,
    Answer,
    answer_predictions,
    answer_sets,
    is_quick,
    predict_images,
    predict_texts,
    read_texts,
)
from serving.routes import (
    DOCUMENT,
    JSON,
    MODELS,
    MULTIPART,
    PAGE,
    POLARITIES,
    PREDICT_IMAGES,
    PREDICT_TEXTS,
    SETS_IMAGES,
    SETS_TEXTS,
    RouteSpec,
)

PAGE_FILE = Path(__file__).parent / "page.html"
# The page needs its own files and this service, nothing else; Swagger UI sets styles and draws data: pictures.
PAGE_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
logger = logging.getLogger("bentoml.convoy")

Handler = Callable[[Scope, Exchange], Awaitable[bytes]]


class Endpoint:
    """A handler as an ASGI app. What it raises is answered here: a layer further out would not count it."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["convoy"]
        try:
            body = await self.handler(scope, exchange)
        except Fault as fault:
            exchange.fault = fault
        except InputRejected as rejection:
            exchange.fault = from_rejection(rejection)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            exchange.fault = Fault("internal_error")
        if exchange.fault is not None:
            # The outer layer writes the body.
            await send({"type": "http.response.start", "status": exchange.fault.status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Handlers:
    """The handlers of the routes that predict, and what they share."""

    def __init__(self, models: DeployedModels) -> None:
        self.models = models
        # onnxruntime leaves Python while it runs: one thread per core, more would only wait for each other.
        self.limiter = anyio.CapacityLimiter(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)

    async def images(self, answer: Answer, scope: Scope, exchange: Exchange) -> bytes:
        model = self._model("image")
        polarity = _polarity(scope["query_string"])
        if not exchange.content_type.lower().startswith(MULTIPART):
            images, name = [exchange.body], ""
        elif len(exchange.body) <= QUICK_BYTES:
            images, name = read_images(exchange.body, exchange.content_type, _max_items(model)), "image"
        else:
            return await anyio.to_thread.run_sync(
                _read_and_predict_form, model, exchange, polarity, answer, limiter=self.limiter
            )
        if len(images) == 1 and is_quick(images[0]):
            return predict_images(model, images, polarity, name, answer)
        return await anyio.to_thread.run_sync(
            predict_images, model, images, polarity, name, answer, limiter=self.limiter
        )

    async def texts(self, answer: Answer, scope: Scope, exchange: Exchange) -> bytes:
        model = self._model("text")
        _refuse_parameters(scope["query_string"])
        return await anyio.to_thread.run_sync(
            _read_and_predict_texts, model, exchange.body, answer, limiter=self.limiter
        )

    async def list_models(self, scope: Scope, _: Exchange) -> bytes:
        _refuse_parameters(scope["query_string"])
        answer: dict[str, object] = {}
        for task, model in self.models.by_task.items():
            if isinstance(model, Deployed):
                card, release = model.predictor.card.model_dump(mode="json"), model.release.model_dump(mode="json")
                answer[task] = {"state": "ready", "card": card, "release": release}
            else:
                answer[task] = {"state": "unavailable", "reason": model.reason}
        return json.dumps(answer, ensure_ascii=False).encode("utf-8")

    def _model(self, task: Task) -> Deployed:
        model = self.models.by_task[task]
        if isinstance(model, Deployed):
            return model
        raise Fault("model_unavailable", f"the {task} model is not loaded, /readyz says why")


def create_app(models: DeployedModels) -> Starlette:
    """The app to be mounted in the service, inside a Shell."""
    handlers = Handlers(models)
    document = json.dumps(openapi.document(), ensure_ascii=False).encode("utf-8")

    async def describe_routes(_scope: Scope, _exchange: Exchange) -> bytes:
        return document

    async def page(_: object) -> Response:
        return FileResponse(PAGE_FILE, headers={"content-security-policy": PAGE_POLICY})

    return Starlette(
        routes=[
            _route(PREDICT_IMAGES, Endpoint(partial(handlers.images, answer_predictions))),
            _route(PREDICT_TEXTS, Endpoint(partial(handlers.texts, answer_predictions))),
            _route(SETS_IMAGES, Endpoint(partial(handlers.images, answer_sets))),
            _route(SETS_TEXTS, Endpoint(partial(handlers.texts, answer_sets))),
            _route(MODELS, Endpoint(handlers.list_models)),
            _route(DOCUMENT, Endpoint(describe_routes)),
            _route(PAGE, page),
        ]
    )


def _route(spec: RouteSpec, endpoint: ASGIApp | Callable[[object], Awaitable[Response]]) -> Route:
    return Route(spec.path, endpoint, methods=[spec.method])


def _read_and_predict_form(model: Deployed, exchange: Exchange, polarity: Polarity | None, answer: Answer) -> bytes:
    images = read_images(exchange.body, exchange.content_type, _max_items(model))
    return predict_images(model, images, polarity, "image", answer)


def _read_and_predict_texts(model: Deployed, body: bytes, answer: Answer) -> bytes:
    return predict_texts(model, read_texts(body, _max_items(model)), answer)


def _max_items(model: Deployed) -> int:
    return model.predictor.card.limits.max_items


def _polarity(query_string: bytes) -> Polarity | None:
    if not query_string:
        return None
    match _pairs(query_string):
        case [("polarity", "light_on_dark" | "dark_on_light" as polarity)]:
            return polarity
    raise Fault("invalid_parameter", f"the only parameter is polarity, once, and {' or '.join(POLARITIES)}")


def _refuse_parameters(query_string: bytes) -> None:
    if query_string:
        raise Fault("invalid_parameter", "this route takes no parameter")


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=2)
    except ValueError:
        return []
