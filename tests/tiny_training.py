"""A folder in which `python -m pipelines.train` trains a tiny network in a second or two."""

from pathlib import Path
from typing import Any

import yaml
from prepared_splits import write_prepared

from convoy.core import paths

DATA = {"image": "bars", "text": "notes"}  # the data set and the task of each kind
NETWORKS = {
    ("image", "cnn"): {"channels": [8, 8], "blocks": 1, "dropout": 0.1, "flip_averaging": True},
    ("image", "lstm"): {"units": 16, "dropout": 0.1},
    ("image", "gru"): {"units": 16, "dropout": 0.1},
    ("image", "rnn"): {"units": 16, "dropout": 0.1},
    ("image", "mlp"): {"hidden": [32], "dropout": 0.1},
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
    ("text", "gru"): {"embedding": 16, "units": 16, "dropout": 0.1, "context_window": 2},
    ("text", "rnn"): {"embedding": 16, "units": 16, "dropout": 0.1, "context_window": 2},
    ("text", "ngrams"): {"places": 997, "smoothing": 1.0, "dropout": 0.1},
    ("text", "stream_lstm"): {"embedding": 16, "units": 16, "dropout": 0.1, "context_window": 2},
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


def named(kind: str, network: str) -> str:
    """The candidate that `lay` has of a network."""
    return f"{DATA[kind]}-{network.replace('_', '-')}"


def entries(
    kind: str, network: str, changes: dict[str, Any] | None = None, **learning: Any
) -> dict[str, dict[str, Any]]:
    """A params.yaml of one candidate; `changes` are to the sections trainer, batches, network and input."""
    changes, data = changes or {}, DATA[kind]
    candidate = {
        "task": data,
        "data": data,
        "kind": kind,
        "input": changes.get("input"),
        "network": {"name": network} | NETWORKS[kind, network] | changes.get("network", {}),
        "learning": LEARNING | learning,
        "batches": BATCHES[kind] | changes.get("batches", {}),
    }
    return {
        "data": {data: {"kind": kind}},
        "tasks": {data: {"data": data, "kind": kind}},
        "candidates": {named(kind, network): candidate},
        "trainer": TRAINER | changes.get("trainer", {}),
    }


def lay(folder: Path, kind: str, network: str, changes: dict[str, Any] | None = None, **learning: Any) -> Path:
    """Write params.yaml and the prepared splits; `changes` as `entries` takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(entries(kind, network, changes, **learning)))
    write_prepared(folder / "data" / "prepared" / DATA[kind], kind, {"train": 300, "validation": 60})
    return folder


def lay_task(folder: Path, params: dict[str, Any]) -> Path:
    """What train, choose, export and evaluate need besides these `entries`: their sections, all splits, baselines."""
    whole = yaml.safe_load((Path(__file__).parents[1] / paths.PARAMS).read_text())
    ((data, entry),) = params["data"].items()
    explained = {"image": "fashion", "text": "reviews"}[entry["kind"]]
    params["tasks"][data] |= {name: whole["tasks"][explained][name] for name in ("limits", "explanation")}
    params = {name: whole[name] for name in ("choose", "export", "evaluate")} | params
    folder.mkdir(parents=True, exist_ok=True)
    (folder / paths.PARAMS).write_text(yaml.safe_dump(params))
    counts = {"train": 300, "validation": 60, "calibration": 60, "test": 60}
    write_prepared(folder / paths.prepared(data), entry["kind"], counts)
    predictions = folder / paths.baselines(data) / "predictions.csv"
    predictions.parent.mkdir(parents=True)
    predictions.write_text("actual,simple\n" + "a,a\n" * counts["test"])
    return folder
