"""What each of Convoy's own routes does: an RequestContext -> the bytes of its answer, or a RequestError."""

import json
from collections.abc import Collection
from urllib.parse import parse_qsl

from convoy.bundles.predictor import Prepared
from convoy.core.paths import Task
from convoy.kinds.image.preprocessing import Polarity
from serving import openapi
from serving.batching import ThreadBatcher, TurnBatcher
from serving.deployed import Deployed, DeployedModels
from serving.errors import RequestError
from serving.explanation_schemas import TextToExplain
from serving.explanations import ImageQuestion, explain_image, explain_text
from serving.json_bodies import read_request
from serving.multipart import read_images
from serving.predictions import QUICK_BYTES, Answer, is_quick, predict_images, prepare_images, prepare_texts, read_texts
from serving.request_context import RequestContext
from serving.routes import METHODS, MULTIPART, POLARITIES
from serving.schemas import RequestLogState
from serving.stream_answers import answer_request
from serving.stream_state import StateToken
from serving.threads import Threads, until

QUICK_S = 0.002  # a model that takes longer would keep the event loop from refusing those who come too many


class Handlers:
    """The handlers, and what they share. What takes a millisecond runs on the event loop, the rest in threads."""

    def __init__(
        self,
        models: DeployedModels,
        request_log: RequestLogState,
        stream_threads: Threads | None = None,
        seal: StateToken | None = None,
    ) -> None:
        self._models, self._request_log, self._seal = models, request_log, seal or StateToken.of()
        self._threads = Threads()
        # Beside the others: pieces of texts, however many and long, keep no prediction waiting for a thread.
        self._stream_threads = stream_threads or Threads(name="stream")
        # One, beside the others: a prediction waits for no explanation, and shares its core with one at most.
        self._explaining = Threads(1)
        self._turns, self._batches = TurnBatcher(), ThreadBatcher(self._threads)
        self._document = json.dumps(openapi.document(), ensure_ascii=False).encode("utf-8")

    async def images(self, answer: Answer, query: bytes, exchange: RequestContext) -> bytes:
        """Images, as the body or in a form -> `answer` of their predictions."""
        model = self._model("image", exchange)
        polarity = _polarity(query)
        body, content_type, most = exchange.body, exchange.content_type, _max_items(model)
        if not content_type.lower().startswith(MULTIPART):
            images, name = [body], ""
        elif len(body) <= QUICK_BYTES:
            images, name = read_images(body, content_type, most), "image"
        else:
            async with until(exchange.deadline_s):
                return await self._threads.run(
                    lambda: predict_images(model, read_images(body, content_type, most), polarity, answer=answer)
                )
        if len(images) == 1 and model.run_s <= QUICK_S and is_quick(images[0]):
            exchange.refuse_if_late()
            prepared = prepare_images(model, images, polarity, name)
            rows = await self._turns.probabilities(model, [prepared[0].array], exchange.deadline_s)
            return answer(model, prepared, rows)
        async with until(exchange.deadline_s):
            return await self._threads.run(lambda: predict_images(model, images, polarity, name, answer))

    async def texts(self, answer: Answer, query: bytes, exchange: RequestContext) -> bytes:
        """The texts of a JSON body -> `answer` of their predictions; they run together with those of other requests."""
        model = self._model("text", exchange)
        _refuse_parameters(query)
        if len(exchange.body) <= QUICK_BYTES:
            prepared = _read_and_prepare(model, exchange.body)
        else:
            async with until(exchange.deadline_s):
                prepared = await self._threads.run(lambda: _read_and_prepare(model, exchange.body))
        # With one core a thread and the event loop only wait for each other.
        alone = model.run_s <= QUICK_S and self._threads.count == 1
        batcher = self._turns if alone else self._batches
        rows = await batcher.probabilities(model, [item.array for item in prepared], exchange.deadline_s)
        return answer(model, prepared, rows)

    async def explain_image(self, query: bytes, exchange: RequestContext) -> bytes:
        """One image, as the body or in a form -> ImageExplanationAnswer."""
        model = self._model("image", exchange)
        asked = _question(query, model.predictor.card.labels)
        body, content_type = exchange.body, exchange.content_type

        def explain() -> bytes:
            if not content_type.lower().startswith(MULTIPART):
                return explain_image(model, body, asked)
            return explain_image(model, read_images(body, content_type, 1)[0], asked, "image")

        async with until(exchange.deadline_s):
            return await self._explaining.run(explain)

    async def explain_text(self, query: bytes, exchange: RequestContext) -> bytes:
        """The text of a JSON body -> TextExplanationAnswer."""
        model = self._model("text", exchange)
        _refuse_parameters(query)

        def explain() -> bytes:
            asked = read_request(exchange.body, TextToExplain)
            if asked.label not in (None, *model.predictor.card.labels):
                raise RequestError(
                    "invalid_request", "label: the model has no such label; /v1/models names those that it has"
                )
            return explain_text(model, asked.text, asked.label)

        async with until(exchange.deadline_s):
            return await self._explaining.run(explain)

    async def stream(self, query: bytes, exchange: RequestContext) -> bytes:
        """A piece of a text, with the state of what came before -> StreamAnswer."""
        model = self._model("text-stream", exchange)
        _refuse_parameters(query)
        async with until(exchange.deadline_s):
            return await self._stream_threads.run(lambda: answer_request(model, self._seal, exchange.body))

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

    def _model(self, task: Task, exchange: RequestContext) -> Deployed:
        model = self._models.by_task[task]
        if isinstance(model, Deployed):
            exchange.model = model
            return model
        raise RequestError("model_unavailable", f"the {task} model is not loaded, /readyz says why")


def _read_and_prepare(model: Deployed, body: bytes) -> list[Prepared]:
    return prepare_texts(model, read_texts(body, _max_items(model)))


def _max_items(model: Deployed) -> int:
    return model.predictor.card.limits.max_items


def _polarity(query: bytes) -> Polarity | None:
    if not query:
        return None
    match _pairs(query):
        case [("polarity", "light_on_dark" | "dark_on_light" as polarity)]:
            return polarity
    raise RequestError("invalid_parameter", f"the only parameter is polarity, once, and {' or '.join(POLARITIES)}")


def _question(query: bytes, labels: Collection[str]) -> ImageQuestion:
    given = dict(pairs := _pairs(query, 3))
    allowed = {"label": labels, "method": METHODS, "polarity": POLARITIES}
    known = all(name in allowed and value in allowed[name] for name, value in pairs)
    if (query and not pairs) or len(given) < len(pairs) or not known:
        raise RequestError(
            "invalid_parameter",
            f"the parameters are label, one of the model's, method, {' or '.join(METHODS)}, and polarity, "
            f"{' or '.join(POLARITIES)}; each once at most",
        )
    return ImageQuestion(**given)  # type: ignore[arg-type]  # checked above


def _refuse_parameters(query: bytes) -> None:
    if query:
        raise RequestError("invalid_parameter", "this route takes no parameter")


def _pairs(query: bytes, most: int = 2) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=most)
    except ValueError:
        return []
