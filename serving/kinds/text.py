"""Texts: requests are JSON, of several whole texts or of a piece of one."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field, with_config
from typing_extensions import TypedDict

from convoy.bundles.predictor import Prepared
from convoy.core.rejection import InputRejected
from convoy.kinds.text.explanation import (
    TextExplanation,
    occlude,
    probabilities_while_reading,
    strongest_phrases,
    word_contributions,
)
from convoy.kinds.text.items.preprocessing import LocatedText
from serving.answers import Answer, answer_explanation, answer_predictions, answer_sets, explained_label
from serving.batching import QUICK_BYTES, QUICK_S
from serving.bodies import read_request
from serving.deployed import Deployed
from serving.errors import RequestError, from_rejection
from serving.routes import Route
from serving.schemas import CLOSED, SETS, Explanation, PredictionsAnswer, Probability, SetsAnswer
from serving.streams import StreamAnswer, StreamRequest, answer_request

if TYPE_CHECKING:
    from serving.models import Work
    from serving.request import RequestContext

# On one core, ms per text of 100 tokens: 0.59 alone, 0.42 by two, 0.38 by four or more; four have the least padding,
# and the shortest wait for each other.
LARGEST_BATCH = 4
# What a blank text is, is decided by preprocessing; the document says it too.
_TEXT = {"minLength": 1, "pattern": r"\S"}


class TextsRequest(BaseModel):
    """The texts to classify."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # Without FailFast pydantic builds an error for each wrong item: 765 MB for the million that 2 MB can hold.
    texts: Annotated[
        list[Annotated[str, Field(json_schema_extra=_TEXT)]],
        FailFast(),
        Field(min_length=1, examples=[["A wonderful little film.", "I want those two hours back."]]),
    ]


class TextToExplain(BaseModel):
    """The text to explain, and the label to explain it for: without one the predicted one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: Annotated[str, Field(json_schema_extra=_TEXT, examples=["A wonderful little film."])]
    label: str | None = None


Contribution = Annotated[
    float,
    Field(
        description="to the logit of the label, relative to the mean of the labels; by occlusion, by how much the "
        "probability of the label falls without it; above 0 speaks for it"
    ),
]


@with_config(CLOSED)
class ExplainedWord(TypedDict):
    """A word that the model read: where it stands in the text, in characters, and what it adds."""

    text: str
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    contribution: Contribution
    probability_after: Annotated[
        Probability | None, Field(description="of the label, where the text ends here; null where it was not computed")
    ]


@with_config(CLOSED)
class ExplainedPhrase(TypedDict):
    """Neighbouring words that the model looks at together: the place of the first among the words, and how many."""

    text: str
    first: Annotated[int, Field(ge=0)]
    words: Annotated[int, Field(ge=1)]
    contribution: Contribution


@with_config(CLOSED)
class OmittedWords(TypedDict):
    """What stands between the head and the tail, which alone are read: how many words, from and to which character."""

    words: Annotated[int, Field(ge=1)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]


@with_config(CLOSED)
class TextExplanationAnswer(Explanation):
    """Which words of a text speak for a label: bias and the words' contributions add up to its logit.

    Phrases are told of models that look at phrases, the strongest first; their contributions are in their words' too.
    By occlusion words are left out, one after the other, or in groups where there are many; nothing adds up.
    """

    words: Annotated[list[ExplainedWord], Field(min_length=1)]
    phrases: list[ExplainedPhrase]
    omitted: NotRequired[OmittedWords]


async def _answer_texts(answer: Answer, work: "Work", model: Deployed, context: "RequestContext") -> bytes:
    """The texts of a JSON body -> `answer` of their predictions; they run together with those of other requests."""
    context.refuse_parameters()

    def step() -> list[Prepared]:
        return prepare(model, read_texts(context.body, model.predictor.card.limits.max_items))

    prepared = step() if len(context.body) <= QUICK_BYTES else await work.run(context, step)
    # With one core, a thread and the event loop would only wait for each other.
    on_event_loop = model.run_s <= QUICK_S and work.threads.count == 1
    batcher = work.loop_batcher if on_event_loop else work.thread_batcher
    rows = await batcher.probabilities(model, [item.array for item in prepared], context.deadline_s)
    return answer(model, prepared, rows)


async def _answer_explanation(work: "Work", model: Deployed, context: "RequestContext") -> bytes:
    """The text of a JSON body -> TextExplanationAnswer."""
    context.refuse_parameters()

    def step() -> bytes:
        request = read_request(context.body, TextToExplain)
        if request.label not in (None, *model.predictor.card.labels):
            raise RequestError(
                "invalid_request", "label: the model has no such label; /v1/models names those that it has"
            )
        return explain(model, request.text, request.label)

    return await work.run(context, step, work.explanation_threads)


async def _answer_piece(work: "Work", model: Deployed, context: "RequestContext") -> bytes:
    """A piece of a text, with the state of what came before -> StreamAnswer."""
    context.refuse_parameters()
    return await work.run(context, lambda: answer_request(model, work.state_token, context.body), work.stream_threads)


def read_texts(body: bytes, max_items: int) -> list[str]:
    """The texts of a JSON body. Raises RequestError where it is not a TextsRequest."""
    texts = read_request(body, TextsRequest).texts
    if len(texts) > max_items:
        raise RequestError("too_many_items", f"{len(texts)} texts, at most {max_items} are allowed in one request")
    return texts


def prepare(model: Deployed, texts: Sequence[str]) -> list[Prepared]:
    """Texts -> the model's inputs. Raises RequestError that names the first bad one, as `texts[2]`."""
    prepared: list[Prepared] = []
    for index, text in enumerate(texts):
        try:
            prepared.append(model.predictor.prepare(text))
        except InputRejected as rejection:
            raise from_rejection(rejection, f"texts[{index}]") from None
    return prepared


def predict(model: Deployed, texts: Sequence[str], answer: Answer = answer_predictions) -> bytes:
    """Texts -> `answer` of their predictions. Raises RequestError that names the first bad one."""
    prepared = prepare(model, texts)
    return answer(model, prepared, model.predictor.probabilities([item.array for item in prepared]))


def explain(model: Deployed, text: str, label: str | None = None) -> bytes:
    """TextExplanationAnswer. Raises RequestError where the text cannot be used, or the bundle explains nothing."""
    predictor, contract = model.predictor, model.predictor.card.explanation
    if not isinstance(contract, TextExplanation):
        raise RequestError("explanation_missing")
    try:
        located: LocatedText = predictor.preprocessor.locate(text)
    except InputRejected as rejection:
        raise from_rejection(rejection, "text") from None
    tokens = located.prepared.array
    phrases: NDArray[np.float32] | None = None
    if model.explainer is None:
        probabilities, falls = occlude(predictor.probabilities, contract, tokens)
        if not np.isfinite(falls).all():
            raise ValueError("the model gave a probability that is no number")
        index = explained_label(model, label, probabilities)
        answer: dict[str, object] = {"method": "occlusion"}
        contributions = falls[index]
    else:
        explained = model.explainer.explain(tokens)
        probabilities = explained.probabilities
        index = explained_label(model, label, probabilities)
        answer = {"method": "contributions", "bias": float(explained.bias[index])}
        phrases = explained.contributions[index]
        contributions = word_contributions(phrases, contract.widths)
    places, rows = probabilities_while_reading(predictor.probabilities, tokens, contract.max_prefixes)
    words = _explain_words(
        text, located, contributions, dict(zip(places.tolist(), rows[:, index].tolist(), strict=True))
    )
    answer |= {"words": words, "phrases": [] if phrases is None else _explain_phrases(words, phrases, contract)}
    if located.omitted:
        answer["omitted"] = _omitted_words(text, located, predictor.card.preprocessing.head_tokens)
    return answer_explanation(model, index, probabilities, answer)


def _explain_words(
    text: str, located: LocatedText, contributions: NDArray[np.float64], probabilities_after: Mapping[int, float]
) -> list[ExplainedWord]:
    return [
        {
            "text": text[start:end],
            "start": start,
            "end": end,
            "contribution": contribution,
            "probability_after": probabilities_after.get(place),
        }
        for place, ((start, end), contribution) in enumerate(zip(located.spans, contributions.tolist(), strict=True))
    ]


def _explain_phrases(
    words: Sequence[ExplainedWord], contributions: NDArray[np.float32], contract: TextExplanation
) -> list[ExplainedPhrase]:
    return [
        {
            "text": " ".join(word["text"] for word in words[phrase.first : phrase.stop]),
            "first": phrase.first,
            "words": phrase.stop - phrase.first,
            "contribution": phrase.contribution,
        }
        for phrase in strongest_phrases(contributions, contract.widths, contract.max_phrases)
    ]


def _omitted_words(text: str, located: LocatedText, head_tokens: int) -> OmittedWords:
    start = located.spans[head_tokens - 1][1] if head_tokens else 0
    end = located.spans[head_tokens][0] if head_tokens < len(located.spans) else len(text)
    return {"words": located.omitted, "start": start, "end": end}


_CODES = ("malformed_json", "text_too_long", "invalid_request", "invalid_text")
_WHOLE = (*_CODES, "blank_text", "too_many_items")
ROUTES = (
    Route(
        "POST",
        "predict",
        "Classify one text or several",
        PredictionsAnswer,
        partial(_answer_texts, answer_predictions),
        _WHOLE,
        takes=TextsRequest,
    ),
    Route(
        "POST",
        "sets",
        "The likely labels of one text or several",
        SetsAnswer,
        partial(_answer_texts, answer_sets),
        (*_WHOLE, "sets_uncalibrated"),
        takes=TextsRequest,
        description=SETS,
    ),
    Route(
        "POST",
        "explain",
        "Which words of a text speak for its label",
        TextExplanationAnswer,
        _answer_explanation,
        (*_CODES, "blank_text", "explanation_missing"),
        takes=TextToExplain,
        explains=True,
        description="Costs about 15 times a prediction: the model reads the text anew up to some of its words; by "
        "occlusion also without each of them, at most 64 times.",
    ),
    # The same path answers WebSockets, which OpenAPI cannot describe; serving/websockets.py does.
    Route(
        "POST",
        "stream",
        "Read a text in pieces; what is known after each word",
        StreamAnswer,
        _answer_piece,
        (*_CODES, "word_too_long", "stream_too_long", "state_invalid", "state_outdated"),
        takes=StreamRequest,
        in_pieces=True,
    ),
)
