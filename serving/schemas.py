"""What the REST routes of every kind give, as types; the OpenAPI document is generated from them."""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, RootModel, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from convoy.bundles.bundle import Card, Release

CLOSED = ConfigDict(extra="forbid")
# What the document says of sets, whatever they are of.
SETS = (
    "For data like ours a set holds the true label as often as `coverage` says: over all inputs together, or, where "
    "the card has a threshold per label, for the inputs of each label. The most probable label is always in. Several "
    "labels mean that the model cannot tell them apart; a set says nothing about inputs that are unlike the data."
)


@with_config(CLOSED)
class ModelName(TypedDict):
    """Which model answered: its registered version and the digest of its bundle."""

    name: str
    version: str
    run_id: str
    digest: str


RequestId = Annotated[str, Field(description="the same as in the header X-Request-Id")]
Probability = Annotated[float, Field(ge=0, le=1)]
Truncated = Annotated[Literal[True], Field(description="of a text: only the head and the tail were read")]
Warnings = Annotated[list[str], Field(min_length=1)]


@with_config(CLOSED)
class Prediction(TypedDict):
    """The most probable label of one input, and the probability of every label."""

    label: str
    probability: Probability
    probabilities: dict[str, Probability]
    truncated: NotRequired[Truncated]
    warnings: NotRequired[Warnings]


@with_config(CLOSED)
class PredictionsAnswer(TypedDict):
    """One prediction per input, in the order of the request."""

    model: ModelName
    predictions: Annotated[list[Prediction], Field(min_length=1)]
    request_id: RequestId


@with_config(CLOSED)
class LabelSet(TypedDict):
    """The labels that one input may well have, the most probable first, and the probability of each.

    The most probable label is always in. Several labels mean that the model cannot tell them apart. A set says nothing
    about whether the input is like the data: one that is something else may well have a single label.
    """

    labels: list[str]
    probabilities: dict[str, Probability]
    truncated: NotRequired[Truncated]
    warnings: NotRequired[Warnings]


Coverage = Annotated[float, Field(gt=0, lt=1, description="how often a set holds the true label, for data like ours")]


@with_config(CLOSED)
class SetsAnswer(TypedDict):
    """One set of labels per input, in the order of the request."""

    model: ModelName
    coverage: Coverage
    predictions: Annotated[list[LabelSet], Field(min_length=1)]
    request_id: RequestId


# By the terms of the network's sum, or by what happens where a part of the input is covered or left out.
Method = Literal["contributions", "occlusion"]


@with_config(CLOSED)
class Explanation(TypedDict):
    """What speaks for a label of one input; each kind adds what its inputs consist of."""

    model: ModelName
    label: Annotated[str, Field(description="the one that is explained: as asked for, or the predicted one")]
    probability: Probability
    probabilities: dict[str, Probability]
    method: Annotated[
        Method,
        Field(
            description="`contributions`: what each part adds to the label's logit, exactly; `occlusion`: by how much "
            "the probability falls without it, where the network is no sum of its parts or it was asked for"
        ),
    ]
    bias: NotRequired[
        Annotated[
            float,
            Field(
                description="what no part adds; with all contributions the logit, whose softmax over labels is told. "
                "Not there by occlusion"
            ),
        ]
    ]
    request_id: RequestId


@with_config(CLOSED)
class ReadyModel(TypedDict):
    """A model that answers: what it says about itself, and what was registered."""

    state: Literal["ready"]
    card: Card
    release: Release


@with_config(CLOSED)
class UnavailableModel(TypedDict):
    """A task whose model cannot be loaded, and why."""

    state: Literal["unavailable"]
    reason: str


class ModelState(RootModel[Annotated[ReadyModel | UnavailableModel, Field(discriminator="state")]]):
    """The model of a task."""


@with_config(CLOSED)
class RequestLogState(TypedDict):
    """Whether requests are logged: never what was sent unless `payloads` says so, and of all only this share."""

    state: Literal["on", "off"]
    share: NotRequired[Probability]
    payloads: NotRequired[bool]


@with_config(CLOSED)
class ModelsAnswer(TypedDict):
    """The model of each deployed task, and whether requests are logged."""

    request_log: RequestLogState
    tasks: dict[str, ModelState]


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
    """The error of /readyz, with the state of each deployed task beside it."""

    tasks: dict[str, TaskState]
