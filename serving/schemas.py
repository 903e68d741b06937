"""What the REST routes take and give, as types; the OpenAPI document is generated from them."""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, FailFast, Field, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from convoy.bundles.bundle import Card, Release
from convoy.core.paths import Task

CLOSED = ConfigDict(extra="forbid")


class TextsRequest(BaseModel):
    """The texts to classify."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # What a blank text is, is decided by preprocessing; the document says it too. Without FailFast pydantic builds an
    # error for each wrong item: 765 MB for the million that 2 MB can hold.
    texts: Annotated[
        list[Annotated[str, Field(json_schema_extra={"minLength": 1, "pattern": r"\S"})]],
        FailFast(),
        Field(min_length=1, examples=[["A wonderful little film.", "I want those two hours back."]]),
    ]


class StreamMessage(BaseModel):
    """A piece of a text, cut anywhere; `final` says that an unfinished word at its end does not go on."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str = Field(examples=["A wonderful lit"])
    final: bool = False


class StreamRequest(StreamMessage):
    """A piece of a text, and the state that came with the answer to the piece before it; null for the first."""

    state: str | None = None


class TextToExplain(BaseModel):
    """The text to explain, and the label to explain it for: without one the predicted one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: Annotated[
        str, Field(json_schema_extra={"minLength": 1, "pattern": r"\S"}, examples=["A wonderful little film."])
    ]
    label: str | None = None


@with_config(CLOSED)
class ModelName(TypedDict):
    """Which model answered: its registered version and the digest of its bundle."""

    name: str
    version: str
    run_id: str
    digest: str


RequestId = Annotated[str, Field(description="the same as in the header X-Request-Id")]
Probability = Annotated[float, Field(ge=0, le=1)]


@with_config(CLOSED)
class ImagePrediction(TypedDict):
    """The most probable label of one image, and the probability of every label."""

    label: str
    probability: Probability
    probabilities: dict[str, Probability]
    warnings: NotRequired[Annotated[list[str], Field(min_length=1)]]


@with_config(CLOSED)
class TextPrediction(ImagePrediction):
    """The most probable label of one text, and the probability of every label."""

    truncated: NotRequired[Annotated[Literal[True], Field(description="only the head and the tail were read")]]


@with_config(CLOSED)
class ImagesAnswer(TypedDict):
    """One prediction per image, in the order of the request."""

    model: ModelName
    predictions: Annotated[list[ImagePrediction], Field(min_length=1)]
    request_id: RequestId


@with_config(CLOSED)
class TextsAnswer(TypedDict):
    """One prediction per text, in the order of the request."""

    model: ModelName
    predictions: Annotated[list[TextPrediction], Field(min_length=1)]
    request_id: RequestId


@with_config(CLOSED)
class ImageSet(TypedDict):
    """The labels that one image may well have, the most probable first, and the probability of each.

    The most probable label is always in. Several labels mean that the model cannot tell them apart. A set says nothing
    about whether the image is like the data: one that shows something else may well have a single label.
    """

    labels: list[str]
    probabilities: dict[str, Probability]
    warnings: NotRequired[Annotated[list[str], Field(min_length=1)]]


@with_config(CLOSED)
class TextSet(ImageSet):
    """The labels that one text may well have, the most probable first, and the probability of each.

    The most probable label is always in. Several labels mean that the model cannot tell them apart. A set says nothing
    about whether the text is like the data: one that shows something else may well have a single label.
    """

    truncated: NotRequired[Annotated[Literal[True], Field(description="only the head and the tail were read")]]


@with_config(CLOSED)
class WordPrediction(TypedDict):
    """A word or a punctuation mark as it stands in the text, and the probabilities after it."""

    word: str
    probabilities: dict[str, Probability]


StreamProbabilities = Annotated[
    dict[str, Probability] | None, Field(description="of the text so far; null before its first word has ended")
]


@with_config(CLOSED)
class StreamAnswer(TypedDict):
    """What is known after a piece: of the text so far, and after each word that has ended with it."""

    model: ModelName
    probabilities: StreamProbabilities
    words: list[WordPrediction]
    state: Annotated[str, Field(description="to be sent with the next piece; signed, and only good for this model")]
    request_id: RequestId


Coverage = Annotated[float, Field(gt=0, lt=1, description="how often a set holds the true label, for data like ours")]


@with_config(CLOSED)
class ImageSetsAnswer(TypedDict):
    """One set of labels per image, in the order of the request."""

    model: ModelName
    coverage: Coverage
    predictions: Annotated[list[ImageSet], Field(min_length=1)]
    request_id: RequestId


@with_config(CLOSED)
class TextSetsAnswer(TypedDict):
    """One set of labels per text, in the order of the request."""

    model: ModelName
    coverage: Coverage
    predictions: Annotated[list[TextSet], Field(min_length=1)]
    request_id: RequestId


Contribution = Annotated[
    float, Field(description="to the logit of the label, relative to the mean of the labels; above 0 speaks for it")
]
Bias = Annotated[
    float, Field(description="what nothing adds; with all contributions the logit, whose softmax over labels is told")
]


@with_config(CLOSED)
class ImageExplanationAnswer(TypedDict):
    """Which places of an image speak for a label: by what each adds to it, or by how much covering it takes away."""

    model: ModelName
    label: Annotated[str, Field(description="the one that is explained: as asked for, or the predicted one")]
    probability: Probability
    probabilities: dict[str, Probability]
    method: Literal["contributions", "occlusion"]
    map: Annotated[
        list[Annotated[list[float], Field(min_length=1)]],
        Field(
            min_length=1,
            description="rows of places, from the top: contributions to the label's logit, relative to the mean of the "
            "labels; or, by occlusion, by how much the probability falls",
        ),
    ]
    bias: NotRequired[Bias]
    size_px: Annotated[int, Field(ge=1, description="side of the image as the model sees it; the map covers all of it")]
    overlay: Annotated[
        str, Field(description="a PNG in base64: that image, orange where it speaks for the label, blue where against")
    ]
    warnings: NotRequired[Annotated[list[str], Field(min_length=1)]]
    request_id: RequestId


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
class TextExplanationAnswer(TypedDict):
    """Which words of a text speak for a label: bias and the words' contributions add up to its logit.

    Phrases are told of models that look at phrases, the strongest first; their contributions are in their words' too.
    """

    model: ModelName
    label: Annotated[str, Field(description="the one that is explained: as asked for, or the predicted one")]
    probability: Probability
    probabilities: dict[str, Probability]
    bias: Bias
    words: Annotated[list[ExplainedWord], Field(min_length=1)]
    phrases: list[ExplainedPhrase]
    omitted: NotRequired[OmittedWords]
    request_id: RequestId


@with_config(CLOSED)
class ReadyModel(TypedDict):
    """A model that answers: what it says about itself, and what was registered."""

    state: Literal["ready"]
    card: Card
    release: Release


@with_config(CLOSED)
class UnavailableModel(TypedDict):
    """A task without a model, and why."""

    state: Literal["unavailable"]
    reason: str


ModelState = Annotated[ReadyModel | UnavailableModel, Field(discriminator="state")]


@with_config(CLOSED)
class RequestLogState(TypedDict):
    """Whether requests are logged: never what was sent unless `payloads` says so, and of all only this share."""

    state: Literal["on", "off"]
    share: NotRequired[Probability]
    payloads: NotRequired[bool]


_OfEachTask = TypedDict("_OfEachTask", {"image": ModelState, "text": ModelState, "text-stream": ModelState})


@with_config(CLOSED)
class ModelsAnswer(_OfEachTask):
    """The model of each task, and whether requests are logged."""

    request_log: RequestLogState


@with_config(CLOSED)
class ErrorDetail(TypedDict):
    """Why a request failed: `code` for programs, `message` for people, `request_id` to find it in the log."""

    code: str
    message: str
    request_id: str


@with_config(CLOSED)
class ErrorAnswer(TypedDict):
    """The body of every 4xx and 5xx."""

    error: ErrorDetail


@with_config(CLOSED)
class TaskState(TypedDict):
    """Whether a task can answer, and why not."""

    state: Literal["ready", "unavailable"]
    reason: NotRequired[str]


@with_config(CLOSED)
class NotReadyAnswer(ErrorAnswer):
    """The error of /readyz, with the state of each task beside it."""

    tasks: dict[Task, TaskState]
