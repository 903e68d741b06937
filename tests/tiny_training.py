"""A folder in which `python -m pipelines.train` trains a tiny network in a second or two."""

from pathlib import Path
from typing import Any

import yaml
from prepared_splits import write_split

NETWORKS = {
    ("image", "cnn"): {"channels": [8, 8], "blocks": 1, "dropout": 0.1, "flip_averaging": True},
    ("image", "lstm"): {"units": 16, "dropout": 0.1},
    ("text", "cnn"): {
        "embedding": 16,
        "filters": 16,
        "widths": [1, 2],
        "dropout": 0.1,
        "context_window": 2,
    },
    ("text", "lstm"): {
        "embedding": 16,
        "units": 16,
        "dropout": 0.1,
        "adversarial": 0.0,
        "context_windows": [2, 3],
        "pairs": {"places": 97, "min_count": 1, "dropout": 0.1},
    },
}
BATCHES = {"image": {"size": 10, "flip": True, "shift_px": 1}, "text": {"size": 10, "bucket": 4}}
TRAINER = {
    "seed": 7,
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "auto",
    "float32_matmul_precision": "highest",
    "compile": False,
    "channels_last": False,
}
LEARNING = {
    "epochs": 6,
    "learning_rate": 0.02,
    "muon_learning_rate": None,
    "weight_decay": 0.01,
    "label_smoothing": 0.05,
    "class_weights": "none",
    "patience": 3,
}


def lay(folder: Path, task: str, architecture: str, changes: dict[str, Any] | None = None, **learning: Any) -> Path:
    """Write params.yaml and the prepared splits; `changes` are to the sections trainer, batches and network."""
    changes = changes or {}
    candidate = {
        "learning": LEARNING | learning,
        "batches": BATCHES[task] | changes.get("batches", {}),
        "network": NETWORKS[task, architecture] | changes.get("network", {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    params = {"train": {"trainer": TRAINER | changes.get("trainer", {}), task: {architecture: candidate}}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for split, count in (("train", 300), ("validation", 60)):
        write_split(task, folder / "data" / "prepared" / task / f"{split}.arrow", count)
    return folder
