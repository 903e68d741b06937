"""Convoy's own routes as ASGI apps, in front of BentoML's."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from convoy.kinds.kind import InputRejected
from serving.deployed import DeployedModels
from serving.errors import RequestError, from_rejection
from serving.handlers import Handlers
from serving.metrics import forget_dead_workers
from serving.metrics_buffer import tally
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


class Front:
    """Answers Convoy's own routes itself; BentoML's layers around a mounted app cost as much as a prediction."""

    def __init__(self, own: Mapping[str, ASGIApp], bentoml_app: ASGIApp, socket: ASGIApp | None = None) -> None:
        self._own, self._bentoml_app, self._socket = own, bentoml_app, socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._own.get(scope["path"]) if scope["type"] == "http" else None
        if scope["type"] == "websocket":
            app = self._socket
        if app is None and scope.get("path") == METRICS.path:
            tally.bring()
            forget_dead_workers()
        await (app or self._bentoml_app)(scope, receive, send)


class Endpoint:
    """A handler as an ASGI app. What it raises is answered here: a layer further out would not count it."""

    def __init__(self, handler: Handler, explains: bool = False) -> None:
        self._handler, self._explains = handler, explains

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: RequestContext = scope["convoy"]
        try:
            body = await self._handler(scope["query_string"], exchange)
        except RequestError as fault:
            exchange.fault = fault
        except InputRejected as rejection:
            exchange.fault = from_rejection(rejection)
        except Exception:
            logger.exception("request %s failed", exchange.request_id, extra={"convoy_request_id": exchange.request_id})
            exchange.fault = RequestError("internal_error")
        if exchange.fault is not None:
            # The outer layer writes the body.
            await send({"type": "http.response.start", "status": exchange.fault.status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [(b"content-type", JSON.encode())]
        if exchange.model is not None:
            # Last, so that what comes before is the same for the same input.
            exchange.answer = body
            body = b'%b,"request_id":"%b"}' % (body[:-1], exchange.request_id.encode())
            headers += exchange.model.headers
            measures = exchange.model.measures
            seconds = measures.explanation_seconds if self._explains else measures.seconds
            tally.observe(seconds, time.monotonic() - exchange.arrived_s)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def own_routes(
    models: DeployedModels,
    request_log: RequestLogState | None = None,
    stream_threads: Threads | None = None,
    seal: StateToken | None = None,
) -> dict[str, ASGIApp]:
    """Convoy's own apps by their path."""
    handlers = Handlers(models, request_log or {"state": "off"}, stream_threads, seal)
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
