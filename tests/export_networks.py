"""Exports small networks: export_networks.py FOLDER [TASK-ARCHITECTURE ...], all without a name.

Each graph is exported by a process of its own, since a second export in one may freeze a dimension of the first. It is
forked after the imports, which take longer than most exports.
"""

import os
import sys
import traceback
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


def write(path: Path, task: Any, architecture: Any) -> None:
    """The graph that predicts, or the one that explains, by the name of the file."""
    how = export_explanation if path.name == "explanation.onnx" else export
    path.parent.mkdir(exist_ok=True)
    # Left in training mode on purpose: the export must not keep dropout.
    path.write_bytes(how(network(task, architecture), example(task), task.partition("-")[0], calibration(task)))


def in_a_fork(path: Path, task: str, architecture: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            write(path, task, architecture)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    folder, *only = sys.argv[1:]
    for task, architecture in NETWORKS:
        if not only or f"{task}-{architecture}" in only:
            names = ["model.onnx", *(["explanation.onnx"] if (task, architecture) in EXPLAINED else [])]
            for name in names:
                if in_a_fork(Path(folder, f"{task}-{architecture}", name), task, architecture):
                    sys.exit(f"{task}-{architecture}: {name} was not exported")
