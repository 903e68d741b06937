"""Exports a graph of a small network from a process and a folder of its own: export_one.py TASK ARCHITECTURE TARGET.

A target that is called explanation.onnx gets the graph that explains.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convoy.bundles.bundle import Calibration
from convoy.export.to_onnx import export, export_explanation
from convoy.kinds.candidates import Description, build
from convoy.kinds.text.networks import input_layer, lstm

NETWORKS: dict[tuple[str, str], dict[str, Any]] = {
    ("image", "cnn"): {"channels": [4, 4, 4], "blocks": 1, "dropout": 0.5, "flip_averaging": True},
    ("image", "lstm"): {"units": 6, "dropout": 0.5},
    ("text", "cnn"): {
        "embedding": 6,
        "filters": 4,
        "widths": [1, 2, 3],
        "dropout": 0.5,
        "context_window": 2,
    },
    ("text", "lstm"): {
        "embedding": 6,
        "units": 5,
        "dropout": 0.5,
        "adversarial": 0.0,
        "context_windows": [2, 3],
        "pairs": {"places": 97, "min_count": 1, "dropout": 0.5},
    },
    ("text-stream", "lstm"): {
        "embedding": 6,
        "units": 5,
        "dropout": 0.5,
        "context_window": 2,
    },
}
EXPLAINED = [names for names in NETWORKS if names[0] != "text-stream"]  # whose bundles have an explanation.onnx


def network(task: Any, architecture: Any) -> torch.nn.Module:
    torch.manual_seed(3)
    built = build(
        Description(
            task=task,
            architecture=architecture,
            network=NETWORKS[task, architecture],
            dimensions={"size_px": 28, "channels": 1} if task == "image" else {"vocabulary": 50, "pad_id": 0},
            labels=("a", "b", "c") if task == "image" else ("negative", "positive"),
            training={},
        )
    )
    if isinstance(built, lstm.Network):  # as after training: pairs that are known and have vectors
        built.pretrain([np.arange(1, 50), np.arange(1, 50)[::-1]], 3)
        for layer in built.modules():
            if isinstance(layer, input_layer.PairVectors):
                torch.nn.init.normal_(layer.embed.weight)
    return built


def calibration(task: str) -> Calibration:
    return Calibration(1.7, (0.5, -1.2, 0.1) if task == "image" else (0.5, -1.2))


def example(task: str) -> torch.Tensor:
    if task == "image":
        return torch.randint(0, 256, (4, 28, 28, 1), dtype=torch.uint8)
    return torch.randint(1, 50, (4, 9))


if __name__ == "__main__":
    task, architecture, target = sys.argv[1:]
    write = export_explanation if Path(target).name == "explanation.onnx" else export
    # Left in training mode on purpose: the export must not keep dropout.
    Path(target).write_bytes(write(network(task, architecture), example(task), task, calibration(task)))
