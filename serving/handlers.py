"""What each of Convoy's own routes does: a RequestContext -> the bytes of its answer, or a RequestError."""

import json
from collections.abc import Collection
from urllib.parse import parse_qsl

from convoy.bundles.predictor import Prepared
from convoy.core.paths import Task
from convoy.kinds.image.preprocessing import Polarity
from serving import openapi
from serving.batching import EventLoopBatcher, ThreadBatcher
from serving.deployed import Deployed, DeployedModels
from serving.errors import RequestError
from serving.explanations import ImageQuestion, explain_image, explain_text
from serving.json_bodies import read_request
from serving.multipart import read_images
from serving.predictions import QUICK_BYTES, Answer, is_quick, predict_images, prepare_images, prepare_texts, read_texts
from serving.request_context import RequestContext
from serving.routes import METHODS, MULTIPART, POLARITIES
from serving.schemas import RequestLogState, TextToExplain
from serving.stream_answers import answer_request
from serving.stream_state import StateToken
from serving.threads import Threads, with_deadline

QUICK_S = 0.002  # a slower model would keep the event loop from refusing requests beyond the capacity


class Handlers:
    """The handlers, and what they share. Work of a millisecond runs on the event loop, longer work in threads."""

    def __init__(
        self,
        models: DeployedModels,
        request_log: RequestLogState,
        stream_threads: Threads | None = None,
        state_token: StateToken | None = None,
    ) -> None:
        self._models, self._request_log, self._state_token = (
            models,
            request_log,
            state_token or StateToken.from_environment(),
        )
        self._threads = Threads()
        # A pool of their own: pieces of texts, however many and long, keep no prediction waiting for a thread.
        self._stream_threads = stream_threads or Threads(name="stream")
        # One, of its own: a prediction waits for no explanation, and shares its core with one at most.
        self._explanation_threads = Threads(1)
        self._loop_batcher, self._thread_batcher = EventLoopBatcher(), ThreadBatcher(self._threads)
        self._document = json.dumps(openapi.document(), ensure_ascii=False).encode("utf-8")

    async def images(self, answer: Answer, query: bytes, context: RequestContext) -> bytes:
        """Images, as the body or in a form -> `answer` of their predictions."""
        model = self._use_model("image", context)
        polarity = _read_polarity(query)
        body, content_type, max_items = context.body, context.content_type, _max_items(model)
        if not content_type.lower().startswith(MULTIPART):
            images, name = [body], ""
        elif len(body) <= QUICK_BYTES:
            images, name = read_images(body, content_type, max_items), "image"
        else:
            async with with_deadline(context.deadline_s):
                return await self._threads.run(
                    lambda: predict_images(model, read_images(body, content_type, max_items), polarity, answer=answer)
                )
        if len(images) == 1 and model.run_s <= QUICK_S and is_quick(images[0]):
            context.refuse_if_late()
            prepared = prepare_images(model, images, polarity, name)
            rows = await self._loop_batcher.probabilities(model, [prepared[0].array], context.deadline_s)
            return answer(model, prepared, rows)
        async with with_deadline(context.deadline_s):
            return await self._threads.run(lambda: predict_images(model, images, polarity, name, answer))

    async def texts(self, answer: Answer, query: bytes, context: RequestContext) -> bytes:
        """The texts of a JSON body -> `answer` of their predictions; they run together with those of other requests."""
        model = self._use_model("text", context)
        _refuse_parameters(query)
        if len(context.body) <= QUICK_BYTES:
            prepared = _read_and_prepare(model, context.body)
        else:
            async with with_deadline(context.deadline_s):
                prepared = await self._threads.run(lambda: _read_and_prepare(model, context.body))
        # With one core, a thread and the event loop would only wait for each other.
        on_event_loop = model.run_s <= QUICK_S and self._threads.count == 1
        batcher = self._loop_batcher if on_event_loop else self._thread_batcher
        rows = await batcher.probabilities(model, [item.array for item in prepared], context.deadline_s)
        return answer(model, prepared, rows)

    async def explain_image(self, query: bytes, context: RequestContext) -> bytes:
        """One image, as the body or in a form -> ImageExplanationAnswer."""
        model = self._use_model("image", context)
        question = _read_question(query, model.predictor.card.labels)
        body, content_type = context.body, context.content_type

        def explain() -> bytes:
            if not content_type.lower().startswith(MULTIPART):
                return explain_image(model, body, question)
            return explain_image(model, read_images(body, content_type, 1)[0], question, "image")

        async with with_deadline(context.deadline_s):
            return await self._explanation_threads.run(explain)

    async def explain_text(self, query: bytes, context: RequestContext) -> bytes:
        """The text of a JSON body -> TextExplanationAnswer."""
        model = self._use_model("text", context)
        _refuse_parameters(query)

        def explain() -> bytes:
            request = read_request(context.body, TextToExplain)
            if request.label not in (None, *model.predictor.card.labels):
                raise RequestError(
                    "invalid_request", "label: the model has no such label; /v1/models names those that it has"
                )
            return explain_text(model, request.text, request.label)

        async with with_deadline(context.deadline_s):
            return await self._explanation_threads.run(explain)

    async def stream(self, query: bytes, context: RequestContext) -> bytes:
        """A piece of a text, with the state of what came before -> StreamAnswer."""
        model = self._use_model("text-stream", context)
        _refuse_parameters(query)
        async with with_deadline(context.deadline_s):
            return await self._stream_threads.run(lambda: answer_request(model, self._state_token, context.body))

    async def list_models(self, query: bytes, _: RequestContext) -> bytes:
        """ModelsAnswer."""
        _refuse_parameters(query)
        answer: dict[str, object] = {"request_log": self._request_log}
        for task, model in self._models.by_task.items():
            if isinstance(model, Deployed):
                card, release = model.predictor.card.model_dump(mode="json"), model.release.model_dump(mode="json")
                answer[task] = {"state": "ready", "card": card, "release": release}
            else:
                answer[task] = {"state": "unavailable", "reason": model.reason}
        return json.dumps(answer, ensure_ascii=False).encode("utf-8")

    async def describe_routes(self, _query: bytes, _: RequestContext) -> bytes:
        """The OpenAPI document."""
        return self._document

    def _use_model(self, task: Task, context: RequestContext) -> Deployed:
        model = self._models.by_task[task]
        if isinstance(model, Deployed):
            context.model = model
            return model
        raise RequestError("model_unavailable", f"the {task} model is not loaded, /readyz says why")


def _read_and_prepare(model: Deployed, body: bytes) -> list[Prepared]:
    return prepare_texts(model, read_texts(body, _max_items(model)))


def _max_items(model: Deployed) -> int:
    return model.predictor.card.limits.max_items


def _read_polarity(query: bytes) -> Polarity | None:
    if not query:
        return None
    match _parse_query(query):
        case [("polarity", "light_on_dark" | "dark_on_light" as polarity)]:
            return polarity
    raise RequestError("invalid_parameter", f"the only parameter is polarity, once, and {' or '.join(POLARITIES)}")


def _read_question(query: bytes, labels: Collection[str]) -> ImageQuestion:
    parameters = dict(pairs := _parse_query(query, 3))
    allowed = {"label": labels, "method": METHODS, "polarity": POLARITIES}
    is_allowed = all(name in allowed and value in allowed[name] for name, value in pairs)
    if (query and not pairs) or len(parameters) < len(pairs) or not is_allowed:
        raise RequestError(
            "invalid_parameter",
            f"the parameters are label, one of the model's, method, {' or '.join(METHODS)}, and polarity, "
            f"{' or '.join(POLARITIES)}; each once at most",
        )
    return ImageQuestion(**parameters)  # type: ignore[arg-type]  # checked above


def _refuse_parameters(query: bytes) -> None:
    if query:
        raise RequestError("invalid_parameter", "this route takes no parameter")


def _parse_query(query: bytes, max_fields: int = 2) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=max_fields)
    except ValueError:
        return []
