"""The outer ASGI layer: what may not come in is refused here, and every error leaves in one form."""

import asyncio
import logging
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convoy.core.paths import TASKS
from serving.admission import SenderGone, checked_deadline_s, checked_headers, checked_route, read_body
from serving.capacity import MOST_EXPLANATIONS, Budget, Capacity
from serving.deployed import Deployed, DeployedModels, Unavailable
from serving.errors import RequestError, from_status
from serving.metrics import errors_of
from serving.metrics_buffer import tally
from serving.request_context import NOSNIFF, RequestContext
from serving.request_log import RequestLog
from serving.routes import EXPLANATIONS, RouteSpec
from serving.security import Security
from serving.traffic import Traffic
from serving.websocket_gate import WebSocketGate

LINGER_S = 2.0  # how long a refused sender may go on sending, so that it can read the answer
LINGER_BYTES = 64_000_000
logger = logging.getLogger("bentoml.convoy")


class Middleware:
    """Wraps a whole BentoML app; BentoML's own middlewares see only what passed."""

    def __init__(
        self,
        app: ASGIApp,
        models: DeployedModels,
        access: Security | None = None,
        traffic: Traffic | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self.app = app
        self.models = models
        self.access = access or Security()
        self.handshakes = WebSocketGate(app, self.access)
        self.traffic = traffic
        self.request_log = request_log
        self.capacities: dict[str, Capacity] = {task: Capacity(task) for task in TASKS}
        self.capacities[EXPLANATIONS] = Capacity(
            EXPLANATIONS, MOST_EXPLANATIONS
        )  # which take no place of a prediction's
        self.budget = Budget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.handshakes(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["convoy"] = RequestContext()
        try:
            headers = checked_headers(scope, exchange)
            route = checked_route(scope, headers, exchange)
            if route.guarded:
                self.access.check(headers)
            if route.task is None:
                await self._pass_on(scope, receive, send, exchange)
            else:
                exchange.task = route.task
                await read_body(scope, receive, headers, self._max_body_bytes(route), self.budget, exchange)
                exchange.deadline_s = checked_deadline_s(headers, exchange)
                await self._let_in(route.queue, scope, _replay(exchange.body, receive), send, exchange)
        except RequestError as fault:
            if exchange.body_read:
                await _send_fault(fault, exchange, send)
            else:
                await _refuse(fault, exchange, scope, receive, send)
        except SenderGone:
            pass
        except Exception:  # a fault of this layer itself
            logger.exception("request %s failed", exchange.request_id, extra={"convoy_request_id": exchange.request_id})
            if not exchange.status:
                await _refuse(RequestError("internal_error"), exchange, scope, receive, send)
        finally:
            self.budget.release(exchange.held)
            if self.request_log is not None:
                self.request_log.note(scope["path"], scope["query_string"], exchange)

    async def _let_in(self, queue: str, scope: Scope, receive: Receive, send: Send, exchange: RequestContext) -> None:
        capacity = self.capacities[queue]
        capacity.enter(exchange.deadline_s)
        try:
            await self._pass_on(scope, receive, send, exchange)
        finally:
            capacity.leave()

    def _max_body_bytes(self, route: RouteSpec) -> int:
        assert route.task is not None
        model = self.models.by_task[route.task]
        if isinstance(model, Unavailable):
            raise RequestError("model_unavailable", f"the {route.task} model is not loaded, /readyz says why")
        return model.predictor.card.limits.max_body_bytes

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, exchange: RequestContext) -> None:
        if self.traffic is None:
            await self._ask(scope, receive, send, exchange)
            return
        began_s = time.monotonic()
        self.traffic.began(scope["path"])
        try:
            await self._ask(scope, receive, send, exchange)
        finally:
            self.traffic.ended(scope["path"], exchange.status, time.monotonic() - began_s)

    async def _ask(self, scope: Scope, receive: Receive, send: Send, exchange: RequestContext) -> None:
        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                if message["status"] >= 400:
                    fault = exchange.fault = exchange.fault or from_status(message["status"])
                    await _send_fault(fault, exchange, send, beside=self._beside(fault))
                    return
                headers = [*message.get("headers", ()), (b"x-request-id", exchange.request_id.encode()), NOSNIFF]
                message = {**message, "headers": headers}
            elif exchange.fault is not None:
                return  # the body that belonged to the other layer's error
            await send(message)

        try:
            await self.app(scope, receive, respond)
        except Exception:
            logger.exception("request %s failed", exchange.request_id, extra={"convoy_request_id": exchange.request_id})
            if not exchange.status:
                await _send_fault(RequestError("internal_error"), exchange, send)

    def _beside(self, fault: RequestError) -> dict[str, object]:
        if fault.code != "not_ready":
            return {}
        return {"tasks": {task: describe(model) for task, model in self.models.by_task.items()}}


def describe(model: Deployed | Unavailable) -> dict[str, str]:
    """TaskState of schemas.py."""
    if isinstance(model, Deployed):
        return {"state": "ready"}
    return {"state": "unavailable", "reason": model.reason}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then what comes after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def _refuse(fault: RequestError, exchange: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once; then let a client that is still sending finish, or it would see a reset and no answer."""
    sends_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
    if not sends_body:
        await _send_fault(fault, exchange, send)
        return
    fault.headers["connection"] = "close"
    await _send_fault(fault, exchange, send, more_body=True)
    received = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while received <= LINGER_BYTES:
                message = await receive()
                received += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


async def _send_fault(
    fault: RequestError,
    exchange: RequestContext,
    send: Send,
    *,
    more_body: bool = False,
    beside: Mapping[str, object] | None = None,
) -> None:
    exchange.status = fault.status
    tally.count(errors_of(fault.code, exchange.task or "none"))
    headers, body = exchange.refusal(fault, beside=beside)
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})
