"""A bundle whose model computes for as long as it is told, to stand in for one that takes 20 ms."""

import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from convoy.bundles.bundle import Card, read_bundle, write_bundle
from convoy.bundles.predictor import Model, Predictor
from convoy.core.atomic import to_json

SIDE = 256


def write(folder: Path, like: Path, wanted_s: float) -> float:
    """Write a bundle with the card of `like`, an image bundle; gives how long its model takes, in seconds."""
    card = Predictor(like).card
    inputs = [example.input for example in read_bundle(like).examples[:2]]
    one_s = _timed(Model(card, {"model.onnx": _model(card, 40)})) / 40
    products = max(1, round(wanted_s / one_s))
    files = {"model.onnx": _model(card, products)}
    model = Model(card, files)
    rows = model.replay(inputs)
    examples = [
        {"input": text, "label": card.labels[int(row.argmax())], "probabilities": [float(value) for value in row]}
        for text, row in zip(inputs, rows, strict=True)
    ]
    write_bundle(folder, card, {**files, "examples.json": to_json(examples)})
    return _timed(model)


def _model(card: Card, products: int) -> bytes:
    """Products of a matrix that depends on the image, so that none can be computed beforehand."""
    contract = card.preprocessing
    random = np.random.default_rng(0)
    weight = (random.standard_normal((SIDE, SIDE)) / SIDE**0.5).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["rows"]),  # (batch, 1, 1)
        helper.make_node("Add", ["weight", "rows"], ["x0"]),  # (batch, side, side)
    ]
    for index in range(products):
        nodes.append(helper.make_node("MatMul", [f"x{index}", "weight"], [f"y{index}"]))
        nodes.append(helper.make_node("Tanh", [f"y{index}"], [f"x{index + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"x{products}", "last"], ["flat"], keepdims=0),  # (batch, side)
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = {
        "axes": np.array([1, 2, 3], dtype=np.int64),
        "last": np.array([1], dtype=np.int64),
        "column": np.array([-1, 1, 1], dtype=np.int64),
        "weight": weight,
        "head": random.standard_normal((SIDE, len(card.labels))).astype(np.float32),
    }
    shape = ["batch", contract.size_px, contract.size_px, contract.channels]
    graph = helper.make_graph(
        nodes,
        "standin",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(card.labels)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _timed(model: Model) -> float:
    """The quickest of some runs."""
    contract = model.card.preprocessing
    batch = np.zeros((1, contract.size_px, contract.size_px, contract.channels), np.uint8)
    took_s = []
    for _ in range(15):
        began_s = time.perf_counter()
        model.run(batch)
        took_s.append(time.perf_counter() - began_s)
    return min(took_s)
