"""The outer ASGI layer: it checks and limits each request, and gives every error one form."""

import asyncio
import logging
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.admission import MOST_EXPLANATIONS, Budget, Capacity, Security
from serving.deployed import Deployed, Unavailable
from serving.errors import RequestError, from_status
from serving.metrics import errors_of
from serving.metrics_buffer import Traffic, metrics_buffer
from serving.models import DeployedModels
from serving.request import (
    NOSNIFF,
    RequestContext,
    SenderGone,
    checked_deadline_s,
    checked_headers,
    checked_route,
    read_body,
)
from serving.request_log import RequestLog
from serving.routes import EXPLANATIONS
from serving.websocket_gate import WebSocketGate

LINGER_S = 2.0  # how long a refused sender may go on sending, so that it can read the answer
LINGER_BYTES = 64_000_000
logger = logging.getLogger("bentoml.convoy")


class Middleware:
    """Wraps a whole BentoML app; BentoML's own middlewares see only the requests that were accepted."""

    def __init__(
        self,
        app: ASGIApp,
        models: DeployedModels,
        security: Security | None = None,
        traffic: Traffic | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self.app = app
        self.models = models
        self.security = security or Security()
        self.websocket_gate = WebSocketGate(app, models, self.security)
        self.traffic = traffic
        self.request_log = request_log
        # Of each task, from its first request on. Explanations have one of their own, to take no place of a prediction.
        self.capacities = {EXPLANATIONS: Capacity(EXPLANATIONS, MOST_EXPLANATIONS)}
        self.budget = Budget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.websocket_gate(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = scope["convoy"] = RequestContext()
        try:
            headers = checked_headers(scope, context)
            route = context.route = checked_route(self.models.by_path, scope, headers, context)
            if route.guarded:
                self.security.check(headers)
            if route.task is None:
                await self._pass_on(scope, receive, send, context)
            else:
                context.task = route.task
                await read_body(scope, receive, headers, route.max_body_bytes, self.budget, context)
                context.deadline_s = checked_deadline_s(headers, context)
                await self._admit(route.queue, scope, _replay(context.body, receive), send, context)
        except RequestError as error:
            if context.body_read:
                await _send_error(error, context, send)
            else:
                await _refuse(error, context, scope, receive, send)
        except SenderGone:
            pass
        except Exception:  # of this layer itself
            logger.exception("request %s failed", context.request_id, extra={"convoy_request_id": context.request_id})
            if not context.status:
                await _refuse(RequestError("internal_error"), context, scope, receive, send)
        finally:
            self.budget.release(context.held_bytes)
            if self.request_log is not None:
                self.request_log.note(scope["path"], scope["query_string"], context)

    async def _admit(self, queue: str, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        capacity = self.capacities.get(queue) or self.capacities.setdefault(queue, Capacity(queue))
        capacity.enter(context.deadline_s)
        try:
            await self._pass_on(scope, receive, send, context)
        finally:
            capacity.leave()

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        if self.traffic is None:
            await self._call_app(scope, receive, send, context)
            return
        began_s = time.monotonic()
        self.traffic.began(scope["path"])
        try:
            await self._call_app(scope, receive, send, context)
        finally:
            self.traffic.ended(scope["path"], context.status, time.monotonic() - began_s)

    async def _call_app(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                if message["status"] >= 400:
                    error = context.error = context.error or from_status(message["status"])
                    extra = {"tasks": self._states()} if error.code == "not_ready" else None
                    await _send_error(error, context, send, extra=extra)
                    return
                headers = [*message.get("headers", ()), (b"x-request-id", context.request_id.encode()), NOSNIFF]
                message = {**message, "headers": headers}
            elif context.error is not None:
                return  # the body of the other layer's error
            await send(message)

        try:
            await self.app(scope, receive, respond)
        except Exception:
            logger.exception("request %s failed", context.request_id, extra={"convoy_request_id": context.request_id})
            if not context.status:
                await _send_error(RequestError("internal_error"), context, send)

    def _states(self) -> dict[str, dict[str, str]]:
        """TaskState of schemas.py, of each task."""
        return {task: _describe(model) for task, model in self.models.by_task.items()}


def _describe(model: Deployed | Unavailable) -> dict[str, str]:
    if isinstance(model, Deployed):
        return {"state": "ready"}
    return {"state": "unavailable", "reason": model.reason}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then the messages after it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def _refuse(error: RequestError, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once, then read on while the client sends, or it would see a reset and no answer."""
    sends_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
    if not sends_body:
        await _send_error(error, context, send)
        return
    error.headers["connection"] = "close"
    await _send_error(error, context, send, more_body=True)
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


async def _send_error(
    error: RequestError,
    context: RequestContext,
    send: Send,
    *,
    more_body: bool = False,
    extra: Mapping[str, object] | None = None,
) -> None:
    context.status = error.status
    metrics_buffer.count(errors_of(error.code, context.task or "none"))
    headers, body = context.error_response(error, extra=extra)
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})
