"""The tasks that are deployed now: the model of each, the routes that they answer, and the routes beside them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from serving import openapi
from serving.adapters import swagger_folder
from serving.batching import EventLoopBatcher, ThreadBatcher, Threads, with_deadline
from serving.deployed import Deployed, Unavailable
from serving.errors import JSON
from serving.request import RequestContext
from serving.routes import ANYWHERE, OWN_CODES, Route, routes_of
from serving.schemas import ModelsAnswer, ModelState, RequestLogState
from serving.streams import StateToken

PAGE = (Path(__file__).parent / "page.html").read_bytes()
# The page needs its own files and this service, nothing else; Swagger UI sets styles and draws data: pictures.
PAGE_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
Model = Deployed | Unavailable
T = TypeVar("T")


class DeployedModels:
    """The model of each task, and the route of each path; a request reads its route once, and keeps its model."""

    def __init__(self, tasks: Mapping[str, Model] | None = None) -> None:
        self.revision = 0  # one more with each change
        self._replace(dict(tasks or {}))

    @property
    def ready(self) -> bool:
        """Whether something is deployed, and every task can answer."""
        return bool(self.by_task) and all(isinstance(model, Deployed) for model in self.by_task.values())

    def put(self, task: str, model: Model) -> None:
        """Let this model, or the reason why there is none, answer for a task from now on."""
        self._replace({**self.by_task, task: model})

    def remove(self, task: str) -> None:
        """Forget a task; its routes are gone."""
        self._replace({name: model for name, model in self.by_task.items() if name != task})

    def states(self) -> dict[str, dict[str, str]]:
        """TaskState of schemas.py, of each task."""
        return {
            task: {"state": "ready"} if isinstance(model, Deployed) else _describe_unavailable(model)
            for task, model in self.by_task.items()
        }

    def _replace(self, by_task: dict[str, Model]) -> None:
        """Replace both tables; neither is ever changed, as requests read them without a lock."""
        self.by_task = dict(sorted(by_task.items()))
        self.by_path = {path: route for route in _routes(self.by_task) for path in route.paths}
        self.revision += 1


class Work:
    """What all handlers share. Work of a millisecond runs on the event loop, longer work in threads."""

    def __init__(
        self,
        models: DeployedModels,
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


async def _list_models(work: Work, _: None, context: RequestContext) -> bytes:
    """ModelsAnswer."""
    context.refuse_parameters()
    tasks = {task: _describe(model) for task, model in work.models.by_task.items()}
    return _to_json({"request_log": work.request_log, "tasks": tasks})


async def _describe_routes(work: Work, _: None, __: RequestContext) -> bytes:
    """The OpenAPI document."""
    return await work.document()


async def _show_page(_work: Work, _: None, __: RequestContext) -> bytes:
    """The page."""
    return PAGE


def _route_of_model(task: str, model: Model) -> Route:
    """The route that describes the model of one task."""

    async def describe_model(_work: Work, _model: None, context: RequestContext) -> bytes:
        context.refuse_parameters()
        return _to_json(_describe(model))

    summary = f"The card and the release of the model of {task}"
    codes = (*OWN_CODES, "invalid_parameter")
    return Route("GET", f"/v1/models/{task}", summary, ModelState, describe_model, codes)


def _describe(model: Model) -> Mapping[str, object]:
    if isinstance(model, Unavailable):
        return _describe_unavailable(model)
    card, release = model.predictor.card.model_dump(mode="json"), model.release.model_dump(mode="json")
    return {"state": "ready", "card": card, "release": release}


def _describe_unavailable(model: Unavailable) -> dict[str, str]:
    return {"state": "unavailable", "reason": model.reason}


def _to_json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8")


def _static_routes() -> list[Route]:
    folder = swagger_folder()
    if folder is None:
        return []
    names = tuple(sorted(path.name for path in folder.iterdir()))
    path, codes = "/static_content/{name}", (*ANYWHERE, "not_found")
    return [Route("GET", path, "The files of the page", "*/*", error_codes=codes, path_values=names)]


METRICS = Route("GET", "/metrics", "Prometheus metrics", "text/plain")
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
    Route("GET", "/livez", "200 while the process lives", "text/plain"),
    Route("GET", "/healthz", "The same as /livez", "text/plain"),
    Route(
        "GET",
        "/readyz",
        "200 when the model of every deployed task is loaded and warm, and there is one",
        "text/plain",
        error_codes=(*ANYWHERE, "not_ready"),
    ),
    METRICS,
    *_static_routes(),
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


def _routes(by_task: Mapping[str, Model]) -> list[Route]:
    of_tasks = [route for task, model in by_task.items() for route in routes_of(task, model)]
    return [*of_tasks, *(_route_of_model(task, model) for task, model in by_task.items()), *OWN]
