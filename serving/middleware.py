"""The outer ASGI layer: it checks, limits and answers each request, and gives every error one form."""

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convoy.core.rejection import InputRejected
from serving.admission import MOST_EXPLANATIONS, Budget, Capacity, Security
from serving.deployed import Deployed
from serving.errors import RequestError, from_rejection, from_status
from serving.metrics import errors_of, forget_dead_workers, metrics_buffer
from serving.models import METRICS, DeployedModels, Work
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
from serving.routes import EXPLANATIONS, Route
from serving.websockets import StreamSocket

LINGER_S = 2.0  # how long a refused sender may go on sending, so that it can read the answer
LINGER_BYTES = 64_000_000
logger = logging.getLogger("bentoml.convoy")


class Middleware:
    """Wraps a whole BentoML app, which sees only the requests that its own routes answer.

    Its layers cost as much as a prediction, so that Convoy's own routes go past them.
    """

    def __init__(
        self,
        app: ASGIApp,
        models: DeployedModels,
        security: Security | None = None,
        work: Work | None = None,
        request_log: RequestLog | None = None,
    ) -> None:
        self.app, self.models, self.security = app, models, security or Security()
        self.work = work or Work(models)
        self.request_log = request_log
        self.stream_socket = StreamSocket(self.work.stream_threads, models, self.security, request_log)
        # Of each task, from its first request on. Explanations have one of their own, to take no place of a prediction.
        self.capacities = {EXPLANATIONS: Capacity(EXPLANATIONS, MOST_EXPLANATIONS)}
        self.budget = Budget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer_http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.stream_socket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or turn whatever is raised on the way into the answer of an error: here, and nowhere else."""
        context = RequestContext()
        try:
            headers = checked_headers(scope, context)
            route = context.route = checked_route(self.models.by_path, scope, headers, context)
            if route.guarded:
                self.security.check(headers)
            context.query = scope["query_string"]
            if route.task is not None:
                await self._answer_by_model(route, headers, scope, receive, send, context)
            elif route.handler is not None:
                await _send_answer(await route.handler(self.work, None, context), route, context, send)
            else:
                await self._answer_by_bentoml(route, scope, receive, send, context)
        except SenderGone:
            pass
        except Exception as error:
            context.error = _to_request_error(error, context)
            if not context.status:
                await _send_error(context.error, context, scope, receive, send)
        finally:
            self.budget.release(context.held_bytes)
            if self.request_log is not None:
                self.request_log.note(scope["path"], scope["query_string"], context)

    async def _answer_by_model(
        self,
        route: Route,
        headers: dict[bytes, bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
        context: RequestContext,
    ) -> None:
        context.task = route.task
        await read_body(scope, receive, headers, route.max_body_bytes, self.budget, context)
        context.deadline_s = checked_deadline_s(headers, context)
        queue = route.queue
        capacity = self.capacities.get(queue) or self.capacities.setdefault(queue, Capacity(queue))
        capacity.enter(context.deadline_s)
        try:
            assert isinstance(route.model, Deployed) and route.handler is not None  # else there is no limit for a body
            model = context.model = route.model
            body = await route.handler(self.work, model, context)
            context.answer = body
            series = model.metrics
            histogram = series.explanation_seconds if route.explains else series.seconds
            metrics_buffer.observe(histogram, time.monotonic() - context.arrived_s)
            await _send_answer(body, route, context, send)
        finally:
            capacity.leave()

    async def _answer_by_bentoml(
        self, route: Route, scope: Scope, receive: Receive, send: Send, context: RequestContext
    ) -> None:
        """Raises RequestError in place of an error of BentoML, whose words would tell of the library."""
        failed: list[RequestError] = []

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    failed.append(from_status(message["status"]))
                    return
                context.status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", context.request_id.encode()), NOSNIFF]
                message = {**message, "headers": headers}
            if not failed:
                await send(message)

        if route is METRICS:
            metrics_buffer.flush()
            forget_dead_workers()
        context.body_read = True  # what there is of it, is BentoML's
        await self.app(scope, receive, respond)
        if failed:
            if failed[0].code == "not_ready":
                failed[0].extra = {"tasks": self.models.states()}
            raise failed[0]


def _to_request_error(error: Exception, context: RequestContext) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, InputRejected):
        return from_rejection(error)
    logger.exception("request %s failed", context.request_id, extra={"convoy_request_id": context.request_id})
    return RequestError("internal_error")


async def _send_answer(body: bytes, route: Route, context: RequestContext, send: Send) -> None:
    headers = [*route.headers]
    if context.model is not None:
        # Last, so that the same input has the same bytes before it.
        body = b'%b,"request_id":"%b"}' % (body[:-1], context.request_id.encode())
        headers += context.model.headers
    headers.append((b"content-length", str(len(body)).encode()))
    headers += ((b"x-request-id", context.request_id.encode()), NOSNIFF)
    context.status = 200
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_error(error: RequestError, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once; then read on while a client sends whose body was not read, or it would see a reset instead."""
    sends_on = not context.body_read and any(
        name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"]
    )
    if sends_on:
        error.headers["connection"] = "close"
    context.status = error.status
    metrics_buffer.count(errors_of(error.code, context.task or "none"))
    headers, body = context.error_response(error)
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": sends_on})
    if sends_on:
        await _linger(receive)
        await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Receive) -> None:
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
