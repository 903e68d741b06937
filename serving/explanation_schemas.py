"""What the routes that explain take and give, as types; the OpenAPI document is generated from them."""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from serving.schemas import CLOSED, ModelName, Probability, RequestId


class TextToExplain(BaseModel):
    """The text to explain, and the label to explain it for: without one the predicted one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: Annotated[
        str, Field(json_schema_extra={"minLength": 1, "pattern": r"\S"}, examples=["A wonderful little film."])
    ]
    label: str | None = None


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
