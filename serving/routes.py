"""Routes: the middleware checks and answers by them, the OpenAPI document describes them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from serving.admission import MOST_BYTES
from serving.deployed import Deployed, Unavailable, require_loaded
from serving.errors import JSON, Json

if TYPE_CHECKING:
    from serving.models import Work
    from serving.request import RequestContext

# Names of queues that are no task's: a task's name has no space.
EXPLANATIONS = "all explanations"
PIECES = "all pieces"  # of the WebSockets

# What any route can answer.
ANYWHERE = ("malformed_request", "unsupported_media_type", "headers_too_large", "internal_error", "deadline_exceeded")
OWN_CODES = (*ANYWHERE, "unauthorized", "forbidden_host", "forbidden_origin")
WITH_BODY = (*OWN_CODES, "request_timeout", "body_too_large", "overloaded", "invalid_parameter", "model_unavailable")

VERBS = ("predict", "sets", "explain", "stream")  # of a task whose bundle cannot be read, and so its kind
# The paths of the packaged tasks until revision db35d33.
FORMER_PATHS = {
    **{f"/v1/images/{verb}": f"/v1/fashion/{verb}" for verb in ("predict", "sets", "explain")},
    **{f"/v1/texts/{verb}": f"/v1/reviews/{verb}" for verb in ("predict", "sets", "explain")},
    "/v1/texts/stream": "/v1/reviews-stream/stream",
}
# What all handlers share, the model of the route's task (None where the route has no task), and the request -> the
# body of a 200. Raises RequestError or InputRejected.
Handler = Callable[["Work", Any, "RequestContext"], Awaitable[bytes]]


@dataclass(frozen=True, eq=False)  # a route is the same as itself alone
class Route:
    """One method of one path, with what answers it; BentoML itself answers where `handler` is None.

    A kind names the verb alone, as `predict`, and error codes beside WITH_BODY; routes_of() makes them those of a task.
    The body is JSON that `takes` describes, or what `content` says in the words of OpenAPI, by media type.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str
    answer: Any  # the type of a 200, or its media type where it has no schema
    handler: Handler | None = None
    error_codes: tuple[str, ...] = ANYWHERE
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", JSON.encode()),)  # of a 200
    description: str = ""  # what the document says beside the summary
    takes: type[BaseModel] | None = None
    content: Json | None = None
    files: type[BaseModel] | None = None  # the same for a caller in Python, whose images are files
    parameters: tuple[Json, ...] = ()  # of the query, in the words of OpenAPI
    path_values: tuple[str, ...] = ()  # all values of {name} in `path`
    task: str | None = None  # set where the body goes to its model, whose card then limits it
    model: Deployed | Unavailable | None = None
    in_pieces: bool = False  # for a model that carries a state; the same path answers WebSockets
    explains: bool = False  # one input, and several runs of the model: with a capacity of its own

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods that the path answers; Starlette gives every GET its HEAD."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    @cached_property
    def media_types(self) -> tuple[str, ...]:
        """The content types that it reads; none where it takes no body, or where nobody knows what it would take."""
        if self.content is not None:
            return tuple(self.content)
        return (JSON,) if self.takes is not None else ()

    @cached_property
    def guarded(self) -> bool:
        """Whether it uses or describes models: Host, Origin and key are checked."""
        return self.path.startswith("/v1/")

    @cached_property
    def queue(self) -> str:
        """Whose capacity it takes: that of its task, or that of all explanations."""
        return EXPLANATIONS if self.explains else self.task or ""

    @cached_property
    def max_body_bytes(self) -> int:
        """Of a body; never more than a worker may hold. Raises RequestError where the model cannot be loaded."""
        return min(require_loaded(self.model).predictor.card.limits.max_body_bytes, MOST_BYTES)

    @property
    def paths(self) -> tuple[str, ...]:
        """All its paths, with the values of {name}."""
        return tuple(self.path.replace("{name}", value) for value in self.path_values) or (self.path,)


def routes_of(task: str, model: Deployed | Unavailable) -> list[Route]:
    """The routes that a task answers, by the kind of its bundle; each of them says why where it cannot be loaded."""
    if isinstance(model, Unavailable):
        return [
            Route("POST", f"/v1/{task}/{verb}", "", None, task=task, model=model, in_pieces=verb == "stream")
            for verb in VERBS
        ]
    in_pieces = model.predictor.card.preprocessing.carries_state
    return [
        replace(
            route,
            path=f"/v1/{task}/{route.path}",
            error_codes=(*WITH_BODY, *route.error_codes),
            task=task,
            model=model,
        )
        for route in model.kind.ROUTES
        if route.in_pieces == in_pieces
    ]


def explain_missing(path: str, by_path: Mapping[str, Route]) -> str:
    """The message of a 404: where a former route is now, or which tasks and routes there are."""
    new = FORMER_PATHS.get(path)
    if new in by_path:
        return f"this route is {new} now"
    if not path.startswith("/v1/"):
        return ""
    verbs: dict[str, list[str]] = {}
    for route in by_path.values():
        if route.task is not None:
            verbs.setdefault(route.task, []).append(route.path.rpartition("/")[2])
    listed = ", ".join(f"/v1/{task}/{'|'.join(names)}" for task, names in verbs.items())
    return f"there is no such path; there is {listed}" if listed else "there is no such path; no task is deployed"
