"""Bundles of a few hundred bytes, made without torch, for the tests of all that reads a bundle."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from image_files import encode
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from convoy.bundles.bundle import (
    EXPLANATION,
    Card,
    Example,
    Limits,
    Sets,
    write_bundle,
)
from convoy.bundles.predictor import Model
from convoy.core.atomic import to_json
from convoy.kinds.image.explanation import ImageExplanation
from convoy.kinds.image.items.preprocessing import ImagePreprocessing
from convoy.kinds.text.explanation import TextExplanation
from convoy.kinds.text.items.preprocessing import StreamPreprocessing, TextPreprocessing
from convoy.kinds.text.preparing.preparation import build_tokenizer

SIZE_PX = 28
WORDS = {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3, "film": 4, "the": 5}
IMAGE_LABELS = ("dark", "middle", "bright")
TEXT_LABELS = ("negative", "positive")


def _model(
    nodes: list[Any],
    input_type: int,
    input_shape: list[Any],
    weights: dict[str, np.ndarray],
    outputs: dict[str, list[Any]],
    state: int = 0,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("input", input_type, input_shape),
            *([helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", state])] if state else []),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def image_model(
    shift: float = 0.0, dark: float = 0.0, sharp: float = 1.0, layers: int = 0, size_px: int = SIZE_PX
) -> bytes:
    """Mean brightness decides between dark, middle and bright.

    With a `shift` so many grey levels too late, with `dark` at the first of both alone; `sharp` is how sure it is, and
    `layers` of 600 units take time and change nothing.
    """
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Gemm", ["column", "weight", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = {
        "axes": np.array([1, 2, 3], dtype=np.int64),
        "last": np.array([1], dtype=np.int64),
        "weight": np.array([[-0.1, 0.0, 0.1]], dtype=np.float32) * sharp,
        "bias": np.array([8.0 + (shift + dark) / 10, 0.0, -15.0 - shift / 10], dtype=np.float32) * sharp,
    }
    if layers:
        weights |= {"wide": np.ones((1, 600), np.float32), "square": np.full((600, 600), 1 / 600, np.float32)}
        weights |= {"nothing": np.zeros((600, 3), np.float32)}
        nodes[-1:] = [
            helper.make_node("MatMul", ["column", "wide"], ["layer 0"]),
            *(helper.make_node("MatMul", [f"layer {n}", "square"], [f"layer {n + 1}"]) for n in range(layers)),
            helper.make_node("MatMul", [f"layer {layers}", "nothing"], ["zeros"]),
            helper.make_node("Add", ["logits", "zeros"], ["sum"]),
            helper.make_node("Softmax", ["sum"], ["probabilities"], axis=1),
        ]
    return _model(nodes, TensorProto.UINT8, ["batch", size_px, size_px, 1], weights, {"probabilities": ["batch", 3]})


def text_model(shift: float = 0.0) -> bytes:
    """Counts good and bad words; padding counts nothing, the word film too much with a shift."""
    scores = np.array([[0, 0], [0, 0], [-1, 1], [1, -1], [0.1 + shift, 0], [0, 0.1]], dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["scores", "input"], ["each"]),
        helper.make_node("ReduceSum", ["each", "time"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = {"scores": scores, "time": np.array([1], dtype=np.int64)}
    return _model(nodes, TensorProto.INT64, ["batch", "tokens"], weights, {"probabilities": ["batch", 2]})


def stream_model(shift: float = 0.0) -> bytes:
    """The same, after each word; what is carried are the scores so far."""
    scores = np.array([[0, 0], [0, 0], [-1, 1], [1, -1], [0.1 + shift, 0], [0, 0.1]], dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["scores", "input"], ["each"]),
        helper.make_node("CumSum", ["each", "time"], ["sums"]),
        helper.make_node("Unsqueeze", ["state", "times"], ["before"]),
        helper.make_node("Add", ["sums", "before"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=2),
        helper.make_node("Gather", ["logits", "last"], ["next_state"], axis=1),
    ]
    weights = {
        "scores": scores,
        "time": np.array(1, dtype=np.int64),
        "times": np.array([1], dtype=np.int64),
        "last": np.array(-1, dtype=np.int64),
    }
    outputs = {"probabilities": ["batch", "tokens", 2], "next_state": ["batch", 2]}
    return _model(nodes, TensorProto.INT64, ["batch", "tokens"], weights, outputs, state=2)


def image_explanation(places: int = 7, size_px: int = SIZE_PX) -> bytes:
    """The sum that `image_model` without options is the softmax of, relative to the mean of its labels."""
    weight = np.array([-0.1, 0.0, 0.1], dtype=np.float32).reshape(3, 1, 1, 1)
    bias = np.array([8.0, 0.0, -15.0], dtype=np.float32)
    side = size_px // places
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("Conv", ["means", "weight"], ["contributions"]),
        helper.make_node("ReduceSum", ["contributions", "places"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "bias"], ["logits"]),
    ]
    weights = {
        "weight": weight / places**2,
        "places": np.array([2, 3], dtype=np.int64),
        "bias": bias - bias.mean(),
    }
    outputs = {"contributions": ["batch", 3, places, places], "logits": ["batch", 3]}
    return _model(nodes, TensorProto.UINT8, ["batch", size_px, size_px, 1], weights, outputs)


def text_explanation() -> bytes:
    """The sum that `text_model` without a shift is the softmax of; half of a score is told for two words together."""
    scores = np.array([[0, 0], [0, 0], [-1, 1], [1, -1], [0.1, 0], [0, 0.1]], dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["scores", "input"], ["each"]),
        helper.make_node("Transpose", ["each"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["columns", "rows"], ["row"]),
        helper.make_node("Concat", ["row", "row"], ["contributions"], axis=2),
        helper.make_node("ReduceSum", ["contributions", "places"], ["logits"], keepdims=0),
    ]
    weights = {
        "scores": (scores - scores.mean(axis=1, keepdims=True)) / 2,
        "rows": np.array([2], dtype=np.int64),
        "places": np.array([2, 3], dtype=np.int64),
    }
    outputs = {"contributions": ["batch", 2, 2, "tokens"], "logits": ["batch", 2]}
    return _model(nodes, TensorProto.INT64, ["batch", "tokens"], weights, outputs)


def stream_tokenizer_json() -> bytes:
    """As the pipeline makes it; how often each word stands in the text gives it the place that it has in WORDS."""
    return build_tokenizer(["good good good good bad bad bad film film the"], len(WORDS)).encode()


def tokenizer_json() -> bytes:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


def png(brightness: int, size: tuple[int, int] = (SIZE_PX, SIZE_PX)) -> bytes:
    """A PNG with a black frame and a square of this brightness in it."""
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    pixels[2:-2, 2:-2] = brightness
    return encode(Image.fromarray(pixels))


def encoded(form: str) -> bytes:
    """A small grey image in another format."""
    return encode(Image.new("L", (SIZE_PX, SIZE_PX), 90), form)


IMAGE_CARD = Card(
    format_version=2,
    task="fashion",
    labels=IMAGE_LABELS,
    preprocessing=ImagePreprocessing(
        kind="image", size_px=SIZE_PX, channels=1, fit="pad", polarity="light_on_dark", max_pixels=16_000_000
    ),
    limits=Limits(max_items=8, max_body_bytes=4_000_000),
    temperature=1.0,
    sets=Sets(coverage=0.95, threshold=0.25, n=100),
    explanation=ImageExplanation(kind="image", patches=4, patch_share=0.25, neutral=(100,)),
    architecture="cnn",
    params={"epochs": 1},
    data={"train": "0" * 64},
)
TEXT_CARD = Card(
    format_version=2,
    task="reviews",
    labels=TEXT_LABELS,
    preprocessing=TextPreprocessing(
        kind="text", max_tokens=16, head_tokens=4, max_characters=20_000, pad_id=0, unknown_id=1
    ),
    limits=Limits(max_items=8, max_body_bytes=1_000_000),
    temperature=1.0,
    sets=Sets(coverage=0.9, threshold=0.3, n=100),
    explanation=TextExplanation(kind="text", max_prefixes=5, max_phrases=3, widths=(1, 2)),
    architecture="lstm",
    params={"epochs": 1},
    data={"train": "0" * 64},
)

STREAM_CARD = TEXT_CARD.model_copy(
    update={
        "task": "reviews-stream",
        "explanation": None,
        "preprocessing": StreamPreprocessing(
            kind="text-stream",
            max_characters=20_000,
            max_pending_characters=100,
            max_words=100_000,
            pad_id=0,
            unknown_id=1,
        ),
    }
)


def _write(folder: Path, card: Card, files: dict[str, bytes], inputs: list[str]) -> None:
    found = Model(card, files).replay(inputs)
    examples = [
        Example(input=text, label=card.labels[int(row.argmax())], probabilities=tuple(map(float, row))).model_dump()
        for text, row in zip(inputs, found, strict=True)
    ]
    write_bundle(folder, card, {**files, "examples.json": to_json(examples)})


def write_image_bundle(
    folder: Path, card: Card = IMAGE_CARD, shift: float = 0.0, adds_up: bool = True, **model: Any
) -> None:
    """With explanation.onnx where the card explains, unless `adds_up` is false: as of a network that is no sum."""
    inputs = [base64.b64encode(png(brightness)).decode() for brightness in (0, 90, 180, 255)]
    size_px = card.preprocessing.size_px
    files = {"model.onnx": image_model(shift, size_px=size_px, **model)}
    _write(folder, card, files | _explained(card, adds_up, image_explanation(size_px=size_px)), inputs)


def write_text_bundle(folder: Path, card: Card = TEXT_CARD, shift: float = 0.0, adds_up: bool = True) -> None:
    inputs = ["the good film", "bad", "the bad bad film", "good " * 20]
    files = {"model.onnx": text_model(shift), "tokenizer.json": tokenizer_json()}
    _write(folder, card, files | _explained(card, adds_up, text_explanation()), inputs)


def write_stream_bundle(folder: Path, card: Card = STREAM_CARD, shift: float = 0.0) -> None:
    inputs = ["the good film", "bad", "the bad bad film", "good " * 20]
    _write(folder, card, {"model.onnx": stream_model(shift), "tokenizer.json": stream_tokenizer_json()}, inputs)


def _explained(card: Card, adds_up: bool, content: bytes) -> dict[str, bytes]:
    return {EXPLANATION: content} if adds_up and card.explanation is not None else {}
