"""Images: requests are the bytes of one image, or a form of several."""

import base64
import struct
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, NotRequired, get_args
from urllib.parse import parse_qsl

import numpy as np
from pydantic import BaseModel, Field, with_config

from convoy.bundles.predictor import Prepared
from convoy.core.rejection import InputRejected
from convoy.kinds.image.explanation import ImageExplanation, draw_overlay, occlude
from convoy.kinds.image.items.preprocessing import Polarity, read_size
from serving.answers import Answer, answer_explanation, answer_predictions, answer_sets, explained_label
from serving.batching import QUICK_BYTES, QUICK_S
from serving.bodies import read_images
from serving.deployed import Deployed
from serving.errors import Json, RequestError, from_rejection
from serving.routes import Route
from serving.schemas import CLOSED, SETS, Explanation, Method, PredictionsAnswer, SetsAnswer, Warnings

if TYPE_CHECKING:
    from serving.models import Work
    from serving.request import RequestContext

# On one core 0.57 ms per image alone, 0.55 by four or more; but the code around the model stays in the caches: a whole
# request takes 6 % less by four, 8 % less by eight.
LARGEST_BATCH = 8
POLARITIES: tuple[Polarity, ...] = get_args(Polarity)
METHODS: tuple[Method, ...] = get_args(Method)
MULTIPART = "multipart/form-data"
# image/jpg is not registered, and many clients send it.
TYPES = ("image/png", "image/jpeg", "image/webp", "image/jpg")

QUICK_PIXELS = 256 * 256  # decoded and classified in about a millisecond
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_HEAD_BYTES = 33  # signature, header chunk and its checksum
_PNG_CHUNK = struct.Struct(">I4s")  # length of the data, and name; the data and a checksum of 4 bytes follow
# Pixels and a few numbers on their colours. Other chunks can be costly to read: 1 kB of text unpacks to 1 MB.
_QUICK_CHUNKS = frozenset({b"IDAT", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs"})
MOST_QUICK_CHUNKS = 32  # 64 kB in chunks of 4 kB, which is smaller than encoders make them


@with_config(CLOSED)
class ImageExplanationAnswer(Explanation):
    """Which places of an image speak for a label: by what each adds to it, or by how much covering it takes away."""

    map: Annotated[
        list[Annotated[list[float], Field(min_length=1)]],
        Field(
            min_length=1,
            description="rows of places, from the top: contributions to the label's logit, relative to the mean of the "
            "labels; or, by occlusion, by how much the probability falls",
        ),
    ]
    size_px: Annotated[int, Field(ge=1, description="side of the image as the model sees it; the map covers all of it")]
    overlay: Annotated[
        str, Field(description="a PNG in base64: that image, orange where it speaks for the label, blue where against")
    ]
    warnings: NotRequired[Warnings]


class ImageFiles(BaseModel):
    """The images to classify, and how they were made."""

    image: Annotated[list[Path], Field(min_length=1)]
    polarity: Polarity | None = None


class ImageFile(BaseModel):
    """The image to explain, for which label (None: the predicted one), how, and how it was made."""

    image: Path
    label: str | None = None
    method: Method | None = None
    polarity: Polarity | None = None


class Question(NamedTuple):
    """For which label to explain an image (None: the predicted one), how, and how the image was made.

    Without a method by contributions, where the bundle has them.
    """

    label: str | None = None
    method: Method | None = None
    polarity: Polarity | None = None


PREDICTED = Question()


async def _answer_images(answer: Answer, work: "Work", model: Deployed, context: "RequestContext") -> bytes:
    """Images, as the body or in a form -> `answer` of their predictions."""
    polarity = _read_polarity(context.query)
    body, content_type, max_items = context.body, context.content_type, model.predictor.card.limits.max_items
    if not content_type.lower().startswith(MULTIPART):
        images, name = [body], ""
    elif len(body) <= QUICK_BYTES:
        images, name = read_images(body, content_type, max_items), "image"
    else:
        return await work.run(
            context, lambda: predict(model, read_images(body, content_type, max_items), polarity, answer=answer)
        )
    if len(images) == 1 and model.run_s <= QUICK_S and is_quick(images[0]):
        context.refuse_if_late()
        prepared = prepare(model, images, polarity, name)
        rows = await work.loop_batcher.probabilities(model, [prepared[0].array], context.deadline_s)
        return answer(model, prepared, rows)
    return await work.run(context, lambda: predict(model, images, polarity, name, answer))


async def _answer_explanation(work: "Work", model: Deployed, context: "RequestContext") -> bytes:
    """One image, as the body or in a form -> ImageExplanationAnswer."""
    question = _read_question(context.query, model.predictor.card.labels)
    body, content_type = context.body, context.content_type

    def step() -> bytes:
        if not content_type.lower().startswith(MULTIPART):
            return explain(model, body, question)
        return explain(model, read_images(body, content_type, 1)[0], question, "image")

    return await work.run(context, step, work.explanation_threads)


def prepare(model: Deployed, images: Sequence[bytes], polarity: Polarity | None, name: str = "image") -> list[Prepared]:
    """Encoded images -> the model's inputs. Raises RequestError that names the first bad one: `image[2]`."""
    if len(images) > 1:
        _refuse_too_many_pixels(model, images, name)
    prepared: list[Prepared] = []
    for index, encoded in enumerate(images):
        try:
            prepared.append(model.predictor.prepare(encoded, polarity=polarity))
        except InputRejected as rejection:
            raise from_rejection(rejection, name and f"{name}[{index}]") from None
    return prepared


def predict(
    model: Deployed,
    images: Sequence[bytes],
    polarity: Polarity | None = None,
    name: str = "image",
    answer: Answer = answer_predictions,
) -> bytes:
    """Encoded images -> `answer` of their predictions. Raises RequestError that names the first bad one."""
    prepared = prepare(model, images, polarity, name)
    return answer(model, prepared, model.predictor.probabilities([item.array for item in prepared]))


def explain(model: Deployed, encoded: bytes, question: Question = PREDICTED, name: str = "") -> bytes:
    """ImageExplanationAnswer. Raises RequestError where the image cannot be used, or the bundle explains nothing."""
    contract = model.predictor.card.explanation
    if not isinstance(contract, ImageExplanation):
        raise RequestError("explanation_missing")
    explainer = None if question.method == "occlusion" else model.explainer
    if explainer is None and question.method == "contributions":
        raise RequestError("explanation_missing", "this network's logits are no sum of places; method=occlusion is")
    (prepared,) = prepare(model, [encoded], question.polarity, name)
    pixels = prepared.array
    answer: dict[str, object] = {"method": "occlusion"}
    if explainer is None:
        probabilities, maps = occlude(model.predictor.probabilities, contract, pixels)
        if not np.isfinite(maps).all():
            raise ValueError("the model gave a probability that is no number")
        index = explained_label(model, question.label, probabilities)
    else:
        explained = explainer.explain(pixels)
        probabilities, maps = explained.probabilities, explained.contributions
        index = explained_label(model, question.label, probabilities)
        answer = {"method": "contributions", "bias": float(explained.bias[index])}
    overlay = base64.b64encode(draw_overlay(pixels, maps[index])).decode()
    answer |= {"map": maps[index].tolist(), "size_px": len(pixels), "overlay": overlay}
    if prepared.warnings:
        answer["warnings"] = list(prepared.warnings)
    return answer_explanation(model, index, probabilities, answer)


def is_quick(encoded: bytes) -> bool:
    """Whether an image is so quick to read that a thread would cost more: a PNG of few pixels and nothing else."""
    if len(encoded) > QUICK_BYTES or not encoded.startswith(_PNG_START) or len(encoded) < 24:
        return False
    width, height = struct.unpack_from(">II", encoded, 16)
    return width * height <= QUICK_PIXELS and _has_only_pixel_chunks(encoded)


def _has_only_pixel_chunks(png: bytes) -> bool:
    offset, last_offset = _PNG_HEAD_BYTES, len(png) - _PNG_CHUNK.size
    for _ in range(MOST_QUICK_CHUNKS):
        if offset > last_offset:
            return False
        length, name = _PNG_CHUNK.unpack_from(png, offset)
        if name == b"IEND":
            return True
        if name not in _QUICK_CHUNKS:
            return False
        offset += _PNG_CHUNK.size + length + 4
    return False


def _refuse_too_many_pixels(model: Deployed, images: Sequence[bytes], name: str) -> None:
    """The limit of one image holds for a request's images together, or large ones would exceed the deadline."""
    most = model.predictor.card.preprocessing.max_pixels
    total = 0
    for index, encoded in enumerate(images):
        try:
            width, height = read_size(encoded, most)
        except InputRejected as rejection:
            raise from_rejection(rejection, f"{name}[{index}]") from None
        total += width * height
    if total > most:
        raise RequestError(
            "image_too_large",
            f"the {len(images)} images have {total} pixels together, at most {most} in all are allowed",
        )


def _read_polarity(query: bytes) -> Polarity | None:
    if not query:
        return None
    match _parse_query(query, 2):
        case [("polarity", "light_on_dark" | "dark_on_light" as polarity)]:
            return polarity
    raise RequestError("invalid_parameter", f"the only parameter is polarity, once, and {' or '.join(POLARITIES)}")


def _read_question(query: bytes, labels: Collection[str]) -> Question:
    parameters = dict(pairs := _parse_query(query, 3))
    allowed = {"label": labels, "method": METHODS, "polarity": POLARITIES}
    is_allowed = all(name in allowed and value in allowed[name] for name, value in pairs)
    if (query and not pairs) or len(parameters) < len(pairs) or not is_allowed:
        raise RequestError(
            "invalid_parameter",
            f"the parameters are label, one of the model's, method, {' or '.join(METHODS)}, and polarity, "
            f"{' or '.join(POLARITIES)}; each once at most",
        )
    return Question(**parameters)  # type: ignore[arg-type]  # checked above


def _parse_query(query: bytes, max_fields: int) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=max_fields)
    except ValueError:
        return []


def _content(description: str, **files: int) -> Json:
    """The body of a request, by media type, in the words of OpenAPI."""
    field = {"type": "array", "minItems": 1, **files, "items": {"type": "string", "format": "binary"}}
    form = {
        "type": "object",
        "properties": {"image": {**field, "description": f"PNG, JPEG or WebP; {description}"}},
        "required": ["image"],
        "additionalProperties": False,
    }
    part_types = {"image": {"contentType": ", ".join([*TYPES, "application/octet-stream"])}}
    raw = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in TYPES}
    return {MULTIPART: {"schema": form, "encoding": part_types}, **raw}


def _parameter(name: str, description: str, **schema: object) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


_POLARITY = _parameter(
    "polarity",
    "how the images were made; they are inverted where the model expects the other",
    enum=list(POLARITIES),
)
_LABEL = _parameter(
    "label", "the label to explain the image for, one of the model's; without it the predicted one", minLength=1
)
_METHOD = _parameter(
    "method",
    "`contributions`: what each place adds to the label's logit, exactly; `occlusion`: by how much the probability "
    "falls where a square covers a place. Without it by contributions, where the network is a sum of its places",
    enum=list(METHODS),
)
_CODES = (
    "too_many_items",
    "malformed_multipart",
    "image_too_large",
    "image_missing",
    "not_a_file",
    "undecodable_image",
    "unknown_field",
)
_SEVERAL = _content("repeat the field for several")
ROUTES = (
    Route(
        "POST",
        "predict",
        "Classify one image or several",
        PredictionsAnswer,
        partial(_answer_images, answer_predictions),
        _CODES,
        content=_SEVERAL,
        files=ImageFiles,
        parameters=(_POLARITY,),
    ),
    Route(
        "POST",
        "sets",
        "The likely labels of one image or several",
        SetsAnswer,
        partial(_answer_images, answer_sets),
        (*_CODES, "sets_uncalibrated"),
        content=_SEVERAL,
        files=ImageFiles,
        parameters=(_POLARITY,),
        description=SETS,
    ),
    Route(
        "POST",
        "explain",
        "Which places of an image speak for its label",
        ImageExplanationAnswer,
        _answer_explanation,
        (*_CODES, "explanation_missing"),
        content=_content("one alone", maxItems=1),
        files=ImageFile,
        parameters=(_POLARITY, _LABEL, _METHOD),
        explains=True,
        description="Costs about 5 times a prediction, by occlusion about 40 times.",
    ),
)
