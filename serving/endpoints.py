"""Convoy's own routes as ASGI apps, and the router in front of BentoML's app."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from convoy.kinds.rejection import InputRejected
from serving.deployed import DeployedModels
from serving.errors import RequestError, from_rejection
from serving.handlers import Handlers
from serving.metrics import forget_dead_workers
from serving.metrics_buffer import metrics_buffer
from serving.predictions import answer_predictions, answer_sets
from serving.request_context import RequestContext
from serving.routes import (
    DOCUMENT,
    EXPLAIN_IMAGE,
    EXPLAIN_TEXT,
    JSON,
    METRICS,
    MODELS,
    PAGE,
    PREDICT_IMAGES,
    PREDICT_TEXTS,
    SETS_IMAGES,
    SETS_TEXTS,
    STREAM_TEXTS,
)
from serving.schemas import RequestLogState
from serving.stream_state import StateToken
from serving.threads import Threads

PAGE_FILE = Path(__file__).parent / "page.html"
# The page needs its own files and this service, nothing else; Swagger UI sets styles and draws data: pictures.
PAGE_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
logger = logging.getLogger("bentoml.convoy")

Handler = Callable[[bytes, RequestContext], Awaitable[bytes]]


class Router:
    """Calls Convoy's own apps directly; BentoML's layers around a mounted app cost as much as a prediction."""

    def __init__(self, apps: Mapping[str, ASGIApp], bentoml_app: ASGIApp, socket: ASGIApp | None = None) -> None:
        self._apps, self._bentoml_app, self._socket = apps, bentoml_app, socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._apps.get(scope["path"]) if scope["type"] == "http" else None
        if scope["type"] == "websocket":
            app = self._socket
        if app is None and scope.get("path") == METRICS.path:
            metrics_buffer.flush()
            forget_dead_workers()
        await (app or self._bentoml_app)(scope, receive, send)


class Endpoint:
    """A handler as an ASGI app. What it raises is answered here: an outer layer would not count it."""

    def __init__(self, handler: Handler, explains: bool = False) -> None:
        self._handler, self._explains = handler, explains

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["convoy"]
        try:
            body = await self._handler(scope["query_string"], context)
        except RequestError as error:
            context.error = error
        except InputRejected as rejection:
            context.error = from_rejection(rejection)
        except Exception:
            logger.exception("request %s failed", context.request_id, extra={"convoy_request_id": context.request_id})
            context.error = RequestError("internal_error")
        if context.error is not None:
            # The middleware writes the body.
            await send({"type": "http.response.start", "status": context.error.status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [(b"content-type", JSON.encode())]
        if context.model is not None:
            # Last, so that the same input has the same bytes before it.
            context.answer = body
            body = b'%b,"request_id":"%b"}' % (body[:-1], context.request_id.encode())
            headers += context.model.headers
            metrics = context.model.metrics
            histogram = metrics.explanation_seconds if self._explains else metrics.seconds
            metrics_buffer.observe(histogram, time.monotonic() - context.arrived_s)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def own_routes(
    models: DeployedModels,
    request_log: RequestLogState | None = None,
    stream_threads: Threads | None = None,
    state_token: StateToken | None = None,
) -> dict[str, ASGIApp]:
    """Convoy's own apps by their path."""
    handlers = Handlers(models, request_log or {"state": "off"}, stream_threads, state_token)
    return {
        PREDICT_IMAGES.path: Endpoint(partial(handlers.images, answer_predictions)),
        PREDICT_TEXTS.path: Endpoint(partial(handlers.texts, answer_predictions)),
        SETS_IMAGES.path: Endpoint(partial(handlers.images, answer_sets)),
        SETS_TEXTS.path: Endpoint(partial(handlers.texts, answer_sets)),
        EXPLAIN_IMAGE.path: Endpoint(handlers.explain_image, explains=True),
        EXPLAIN_TEXT.path: Endpoint(handlers.explain_text, explains=True),
        STREAM_TEXTS.path: Endpoint(handlers.stream),
        MODELS.path: Endpoint(handlers.list_models),
        DOCUMENT.path: Endpoint(handlers.describe_routes),
        PAGE.path: FileResponse(PAGE_FILE, headers={"content-security-policy": PAGE_POLICY}),
    }
