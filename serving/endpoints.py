"""Calls the handler of a route, and turns its answer into one of HTTP; BentoML's app answers what has no handler."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from convoy.core.rejection import InputRejected
from serving import openapi
from serving.batching import EventLoopBatcher, ThreadBatcher
from serving.deployed import Deployed, Unavailable
from serving.errors import RequestError, from_rejection
from serving.kinds.kind import JSON
from serving.metrics import forget_dead_workers
from serving.metrics_buffer import metrics_buffer
from serving.request import RequestContext
from serving.routes import BUILT_IN, METRICS, OWN_CODES, Route
from serving.schemas import ModelsAnswer, ModelState, RequestLogState
from serving.stream_state import StateToken
from serving.threads import Threads, with_deadline

if TYPE_CHECKING:
    from serving.models import DeployedModels

PAGE = (Path(__file__).parent / "page.html").read_bytes()
# The page needs its own files and this service, nothing else; Swagger UI sets styles and draws data: pictures.
PAGE_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
T = TypeVar("T")
logger = logging.getLogger("bentoml.convoy")


class Work:
    """What all handlers share. Work of a millisecond runs on the event loop, longer work in threads."""

    def __init__(
        self,
        models: "DeployedModels",
        request_log: RequestLogState | None = None,
        state_token: StateToken | None = None,
    ) -> None:
        self.models = models
        self.request_log: RequestLogState = request_log or {"state": "off"}
        self.state_token = state_token or StateToken.from_environment()
        self.threads = Threads()
        # A pool of their own: pieces of texts, however many and long, keep no prediction waiting for a thread.
        self.stream_threads = Threads(name="stream")
        # One, of its own: a prediction waits for no explanation, and shares its core with one at most.
        self.explanation_threads = Threads(1)
        self.loop_batcher, self.thread_batcher = EventLoopBatcher(), ThreadBatcher(self.threads)
        self._document: tuple[int, bytes] = (-1, b"")  # revision of the models, and what describes them

    async def run(self, context: RequestContext, step: Callable[[], T], threads: Threads | None = None) -> T:
        """The result of `step`, in a thread. Raises RequestError at the deadline of the request."""
        async with with_deadline(context.deadline_s):
            return await (threads or self.threads).run(step)

    async def document(self) -> bytes:
        """The OpenAPI document of the routes of now."""
        revision = self.models.revision
        if self._document[0] != revision:
            routes = list(dict.fromkeys(self.models.by_path.values()))
            self._document = revision, await self.threads.run(lambda: _to_json(openapi.document(routes)))
        return self._document[1]


class Endpoints:
    """The app inside the middleware, which has found the route.

    What a handler raises is answered here: an outer layer would not count it. BentoML's layers around a mounted app
    cost as much as a prediction, so that Convoy's own routes go past them.
    """

    def __init__(self, work: Work, bentoml_app: ASGIApp, socket: ASGIApp | None = None) -> None:
        self._work, self._bentoml_app, self._socket = work, bentoml_app, socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self._socket is not None:
            await self._socket(scope, receive, send)
            return
        context: RequestContext | None = scope.get("convoy")
        if context is None or context.route is None or context.route.handler is None:
            if context is not None and context.route is METRICS:
                metrics_buffer.flush()
                forget_dead_workers()
            await self._bentoml_app(scope, receive, send)
            return
        await self._answer(context.route, context, scope["query_string"], send)

    async def _answer(self, route: Route, context: RequestContext, query: bytes, send: Send) -> None:
        assert route.handler is not None
        try:
            context.query = query
            if isinstance(route.model, Deployed):  # else the middleware has refused the request
                context.model = route.model
            body = await route.handler(self._work, context.model, context)
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
        headers = list(route.headers)
        if context.model is not None:
            # Last, so that the same input has the same bytes before it.
            context.answer = body
            body = b'%b,"request_id":"%b"}' % (body[:-1], context.request_id.encode())
            headers += context.model.headers
            metrics = context.model.metrics
            histogram = metrics.explanation_seconds if route.explains else metrics.seconds
            metrics_buffer.observe(histogram, time.monotonic() - context.arrived_s)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _list_models(work: Work, _: None, context: RequestContext) -> bytes:
    """ModelsAnswer."""
    context.refuse_parameters()
    tasks = {task: _describe(model) for task, model in work.models.by_task.items()}
    return _to_json({"request_log": work.request_log, "tasks": tasks})


def describe_route(task: str, model: Deployed | Unavailable) -> Route:
    """The route that describes the model of one task."""

    async def describe_model(_work: Work, _model: None, context: RequestContext) -> bytes:
        context.refuse_parameters()
        return _to_json(_describe(model))

    return Route(
        "GET",
        f"/v1/models/{task}",
        f"The card and the release of the model of {task}",
        ModelState,
        describe_model,
        (*OWN_CODES, "invalid_parameter"),
    )


async def _describe_routes(work: Work, _: None, __: RequestContext) -> bytes:
    """The OpenAPI document."""
    return await work.document()


async def _show_page(_work: Work, _: None, __: RequestContext) -> bytes:
    """The page."""
    return PAGE


def _describe(model: Deployed | Unavailable) -> dict[str, object]:
    if isinstance(model, Unavailable):
        return {"state": "unavailable", "reason": model.reason}
    card, release = model.predictor.card.model_dump(mode="json"), model.release.model_dump(mode="json")
    return {"state": "ready", "card": card, "release": release}


def _to_json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8")


# Open to all are the document and the page: a browser has no key before it has read them, and they show no data.
OWN = (
    Route(
        "GET",
        "/v1/models",
        "The card and the release of the model of each deployed task, and whether requests are logged",
        ModelsAnswer,
        _list_models,
        (*OWN_CODES, "invalid_parameter"),
    ),
    *BUILT_IN,
    Route("GET", "/docs.json", "This document", JSON, _describe_routes),
    Route(
        "GET",
        "/",
        "This document as a page to try the routes",
        "text/html",
        _show_page,
        headers=((b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", PAGE_POLICY.encode())),
    ),
)
