"""Exports small networks: export_networks.py FOLDER [KIND-NETWORK ...], all without a name.

Each graph is exported by a process of its own, since a second export in one may freeze a dimension of the first. It is
forked after the imports, which take longer than most exports.
"""

import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from convoy.bundles.bundle import Calibration
from convoy.core.tasks import Candidate
from convoy.export.to_onnx import export, export_explanation
from convoy.kinds.learning.candidates import build, describe
from convoy.kinds.learning.class_activation import PlaceNetwork
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.text.networks.layers.vectors import PairVectors

READER = {"embedding": 6, "units": 5, "dropout": 0.5}
NETWORKS: dict[tuple[str, str], dict[str, Any]] = {
    ("image", "cnn"): {"channels": [4, 4, 4], "blocks": 1, "dropout": 0.5, "flip_averaging": True},
    ("image", "lstm"): {"units": 6, "dropout": 0.5},
    ("image", "gru"): {"units": 6, "dropout": 0.5},
    ("image", "rnn"): {"units": 6, "dropout": 0.5},
    ("image", "mlp"): {"hidden": [8, 6], "dropout": 0.5},
    ("text", "cnn"): {"embedding": 6, "filters": 4, "widths": [1, 2, 3], "dropout": 0.5, "context_window": 2},
    ("text", "lstm"): {
        **READER,
        "adversarial": 0.0,
        "context_windows": [2, 3],
        "pairs": {"places": 97, "min_count": 1, "dropout": 0.5},
    },
    ("text", "gru"): {**READER, "context_window": 2},
    ("text", "rnn"): {**READER, "context_window": 2},
    ("text", "ngrams"): {"places": 97, "smoothing": 1.0, "dropout": 0.5},
    ("text", "stream_lstm"): {**READER, "context_window": 2},  # for texts in pieces
    ("text", "stream_lstm of whole texts"): {**READER, "context_window": 2},
}
LABELS = {"image": ("a", "b", "c"), "text": ("negative", "positive")}
DIMENSIONS = {"image": {"size_px": 28, "channels": 1}, "text": {"vocabulary": 50, "pad_id": 0}}


def untrained(kind: str, name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    data: Any = SimpleNamespace(dimensions=DIMENSIONS[kind], names=LABELS[kind])
    contract = InputContract(SimpleNamespace(model_dump=lambda mode: {}), {}, False)
    code = name.partition(" ")[0]
    about = Candidate(f"{kind}-{code}", kind, kind, kind, code)
    return build(describe(about, {"name": code, **NETWORKS[kind, name]}, contract, data, {}))


def network(kind: str, name: str) -> torch.nn.Module:
    """As after training: pairs of words that are known and have vectors, n-grams that were counted."""
    built = untrained(kind, name)
    texts = [np.arange(1, 50), np.arange(1, 50)[::-1], np.arange(1, 20)]
    if name in ("lstm", "ngrams") and kind == "text":
        built.pretrain(texts, np.array([0, 1, 1]), 3)  # type: ignore[operator]
    for layer in built.modules():
        if isinstance(layer, PairVectors):
            torch.nn.init.normal_(layer.embed.weight)
    return built


EXPLAINED = [
    names for names in NETWORKS if isinstance(untrained(*names), PlaceNetwork)
]  # they have an explanation.onnx
CARRIES_STATE = ("text", "stream_lstm")


def calibration(kind: str) -> Calibration:
    return Calibration(1.7, (0.5, -1.2, 0.1) if kind == "image" else (0.5, -1.2))


def example(kind: str) -> torch.Tensor:
    if kind == "image":
        return torch.randint(0, 256, (4, 28, 28, 1), dtype=torch.uint8)
    return torch.randint(1, 50, (4, 9))


def write(path: Path, kind: str, name: str) -> None:
    """The graph that predicts, or the one that explains, by the name of the file."""
    # Left in training mode on purpose: the export must not keep dropout.
    arguments = network(kind, name), example(kind), kind, calibration(kind)
    if path.name == "explanation.onnx":
        content = export_explanation(*arguments)
    else:
        content = export(*arguments, carries_state=(kind, name) == CARRIES_STATE)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def in_a_fork(path: Path, kind: str, name: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            write(path, kind, name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    folder, *only = sys.argv[1:]
    for kind, name in NETWORKS:
        if not only or f"{kind}-{name}" in only:
            files = ["model.onnx", *(["explanation.onnx"] if (kind, name) in EXPLAINED else [])]
            for file in files:
                if in_a_fork(Path(folder, f"{kind}-{name}", file), kind, name):
                    sys.exit(f"{kind}-{name}: {file} was not exported")
