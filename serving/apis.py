"""The tasks that are deployed when the service is imported -> its `@bentoml.api` methods, as a BentoML user expects.

BentoML fixes the methods of a service when it is imported, and its layers cost as much as a prediction. So the
middleware answers their routes, for the tasks of now; the methods are what BentoML describes, and what a caller in
Python has.
"""

import json
import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import bentoml
import orjson
from bentoml.exceptions import BentoMLException

from convoy.core.rejection import InputRejected
from convoy.core.tasks import CURRENT
from convoy.kinds.registry import kind_of, module
from serving.deployed import deployed_tasks, refuse_odd_files, require_loaded
from serving.errors import JSON, RequestError, from_rejection
from serving.models import Work
from serving.reloading import Step
from serving.request import RequestContext
from serving.routes import Route

BOUNDARY = "convoy-form"
T = TypeVar("T")
logger = logging.getLogger("bentoml.convoy")


def apis_of_deployed(root: Path, work: Work) -> dict[str, Any]:
    """The methods by their names, as `fashion_predict`; a task that cannot be read has none, and the log says why."""
    apis: dict[str, Any] = {}
    tasks: list[str] = _within_limit(lambda: deployed_tasks(root) if root.is_dir() else [], root) or []
    for task in tasks:
        current = root / task / CURRENT
        for route in _within_limit(partial(_routes_of, current), current) or ():
            apis[_name(task, route)] = _api(task, route, work)
    return apis


def _within_limit(work: Callable[[], T], path: Path) -> T | None:
    """The result of work on files; None where they do not answer or are not as they should be, which is logged."""
    step = Step(work)
    try:
        if step.is_alive():
            raise TimeoutError("its files do not answer")
        return step.result()
    except Exception as error:
        logger.warning("%s: BentoML's view of the service lacks its methods: %s", path, error)
        return None


def _name(task: str, route: Route) -> str:
    return f"{task.replace('-', '_')}_{route.path}"


def _routes_of(current: Path) -> list[Route]:
    """The routes of a task, by the card of its bundle alone: the model is loaded by each worker."""
    refuse_odd_files(current)
    contract = json.loads((current / "card.json").read_bytes())["preprocessing"]
    kind = kind_of(contract["kind"])
    in_pieces = module(kind, "items.preprocessing").read_contract(contract).carries_state
    return [route for route in import_module(f"serving.kinds.{kind}").ROUTES if route.in_pieces == in_pieces]


def _api(task: str, route: Route, work: Work) -> Any:
    async def call(self: object, **inputs: Any) -> dict[str, Any]:
        return await _call(task, route, work, inputs)

    call.__name__ = _name(task, route)
    call.__doc__ = route.summary
    decorate: Callable[[Any], Any] = bentoml.api(
        route=f"/v1/{task}/{route.path}", input_spec=route.takes or route.files, output_spec=route.answer
    )
    return decorate(call)


async def _call(task: str, route: Route, work: Work, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the route answers, but for its request id. Raises BentoMLException with the status of the route's error."""
    assert route.handler is not None  # as each route of a kind has
    try:
        model = require_loaded(work.models.by_task.get(task))
        answer: dict[str, Any] = orjson.loads(await route.handler(work, model, _request(route, inputs)))
    except (RequestError, InputRejected) as error:
        refused = error if isinstance(error, RequestError) else from_rejection(error)
        raise BentoMLException(refused.message, error_code=HTTPStatus(refused.status)) from None
    return answer


def _request(route: Route, inputs: dict[str, Any]) -> RequestContext:
    """The request that a client would send: JSON, or a form of files with the rest as its query."""
    context = RequestContext()
    if route.takes is not None:
        context.body, context.content_type = orjson.dumps(inputs), JSON
        return context
    files = inputs["image"] if isinstance(inputs["image"], list) else [inputs["image"]]
    head = b'--%b\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n' % BOUNDARY.encode()
    parts = [head + Path(file).read_bytes() + b"\r\n" for file in files]
    context.body = b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()
    context.content_type = f"multipart/form-data; boundary={BOUNDARY}"
    rest = {name: value for name, value in inputs.items() if name != "image" and value is not None}
    context.query = urlencode(rest).encode()
    return context
