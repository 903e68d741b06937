"""A folder as `dvc repro` leaves it, made of tiny bundles in milliseconds, for the tests of all that publishes."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import gate_splits
import tiny_bundles
import yaml
from PIL import Image

from convoy.core import stage_names
from convoy.core.paths import DATA_KINDS, Task, architectures, kind_of

METRICS = {"accuracy": 0.9, "macro_f1": 0.89, "log_loss": 0.3, "n": 100}
BASELINES = {"image": "mlp", "text": "nb-svm"}
BASELINE_PARAMS = {
    "seed": 0,
    "image": {"mlp": {"hidden": [8], "epochs": 3}, "logreg": {"epochs": 2}},
    "text": {"counting": {"longest": 2}, "nb-svm": {"smoothing": 1.0}},
}
PREPARE = tuple(map(stage_names.prepare, DATA_KINDS))
AGREEMENT = {"max_difference": 1e-6, "class_flips": 0, "n": 100}
# No service is started; the pairs are few, since the time of a tiny model is mostly noise.
PUBLISH = {
    **yaml.safe_load(Path(__file__).parents[1].joinpath("release.yaml").read_text())["publish"],
    "promote": "automatic",
    "significance": 0.05,
    "min_accuracy_difference": -0.01,
    "max_slice_drop": 0.03,
    "max_log_loss_rise": 0.02,
    "max_probability_difference": 1e-4,
    "rest_rows": 0,
    "max_calibration_error": 0.04,
    "max_bundle_bytes": 1_000_000,
    "latency_pairs": 20,
    "max_latency_ratio": 20.0,
}
PARAMS = {"learning": {"epochs": 3, "learning_rate": 0.006}, "network": {"channels": [32, 64]}}


def lay(
    root: Path,
    task: Task = "image",
    validation: dict[str, float] | None = None,
    version: int = 1,
    data: int = 1,
    shift: float = 0.0,
    labels: tuple[str, ...] | None = None,
    **publish: Any,
) -> None:
    """Lay what the pipeline builds for `task`.

    Another `version` is another winner, other `data` another split; a model with a `shift` is worse on the gate split.
    `labels` take the place of the tiny bundle's own, as many as it has.
    The rest is for the section publish of release.yaml.
    """
    kind = kind_of(task)
    _reports(
        root / "reports" / task, task, {**METRICS, **(validation or {})}, version, data, labels or ("T-shirt/top",)
    )
    weights = root / "candidates"
    for architecture in architectures(task):
        _write(weights / f"{task}-{architecture}" / "weights.safetensors", f"weights {version}".encode())
    cards = {"image": tiny_bundles.IMAGE_CARD, "text": tiny_bundles.TEXT_CARD, "text-stream": tiny_bundles.STREAM_CARD}
    card = cards[task]
    about = {
        "params": {**PARAMS, "seed": version},
        "architecture": architectures(task)[0],
        "data": {"train": f"{data:064}"},
    }
    card = card.model_copy(update=about | ({"labels": labels} if labels else {}))
    getattr(tiny_bundles, f"write_{task.rpartition('-')[2]}_bundle")(root / "bundles" / task, card, shift)
    _write(root / "data/prepared" / kind / "gate.arrow", gate_splits.content(kind, labels=labels))
    params = {name: {"limits": gate_splits.NO_LIMITS} for name in PREPARE}
    _write(root / "params.yaml", yaml.safe_dump(params).encode())
    _write(root / "release.yaml", yaml.safe_dump({"publish": {**PUBLISH, **publish}}).encode())
    _write(root / "pipelines/train.py", b"# trains\n")
    write_lock(root, task, data)


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` as a person without a configuration."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _reports(
    folder: Path, task: Task, validation: dict[str, float], version: int, data: int, labels: tuple[str, ...]
) -> None:
    test = {**METRICS, "accuracy": 0.91, "labels": {label: {"f1": 0.8} for label in labels}}
    for architecture in architectures(task):
        fingerprint = hashlib.sha256(f"{task}-{architecture} {version} {data}".encode()).hexdigest()
        _write(folder / architecture / "training.json", json.dumps({"fingerprint": fingerprint}).encode())
        metrics = {"validation": validation, "best_epoch": 2, "parameters": 1234}
        _write(folder / architecture / "metrics.json", json.dumps(metrics).encode())
        rows = [f"{epoch},{1 / epoch},{0.5 / epoch},0.9,0.001,{epoch * 1.5}" for epoch in (1, 2, 3)]
        header = "epoch,train_loss,validation_loss,validation_accuracy,learning_rate,elapsed_s"
        _write(folder / architecture / "curves.csv", "\n".join([header, *rows, ""]).encode())
        for picture in ("confusion", "misclassified"):
            Image.new("L", (8, 8)).save(folder / architecture / f"{picture}.png")
    for picture in ("reliability", "slices"):
        Image.new("L", (8, 8)).save(folder / f"{picture}.png")
    contents: dict[str, Any] = {
        "choice": {"architecture": "cnn", "candidates": {name: validation for name in architectures(task)}},
        "parity": {part: AGREEMENT for part in ("validation", "sizes", "batches")},
        "test": test,
        "slices": {"class": {label: {"accuracy": 0.8, "n": n} for n, label in enumerate(labels, 10)}},
        "explanation": {"n": 500, "share": 0.1, "difference": 0.3},
        "candidates": {name: {"accuracy": 0.91, "log_loss": 0.31, "n": 100} for name in architectures(task)},
    }
    if len(architectures(task)) == 1:
        del contents["choice"]  # there was none
    if _explains(task):
        contents["parity"]["explanation"] = {**AGREEMENT, "mean_contribution_difference": 1e-7}
    else:
        del contents["explanation"]
    kind = kind_of(task)
    _write(folder.parent / kind / "findings.json", gate_splits.findings(kind))
    _write(folder.parent / kind / "data.json", json.dumps({"train": 100}).encode())
    for name, content in contents.items():
        _write(folder / f"{name}.json", json.dumps(content).encode())
    report = folder.parent / "baselines.json"
    known = json.loads(report.read_bytes()) if report.exists() else {}
    _write(report, json.dumps({**known, kind: {BASELINES[kind]: {"accuracy": 0.85, "n": 100}}}).encode())
    _write(folder.parent / f"baselines/{kind}.csv", f"actual,{BASELINES[kind]}\n".encode())


def _md5_of_folder(folder: Path) -> str:
    """DVC's, for a folder without folders in it."""
    files = [(hashlib.md5(path.read_bytes()).hexdigest(), path.name) for path in sorted(folder.iterdir())]
    return hashlib.md5(json.dumps([{"md5": md5, "relpath": name} for md5, name in files]).encode()).hexdigest() + ".dir"


def write_lock(root: Path, task: Task, data: int = 1) -> None:
    """Write the entries that DVC would for the files as they are now, merged with those of the other task."""
    kind = kind_of(task)

    def entry(path: str, content: str | None = None) -> dict[str, str]:
        file = root / path
        known = file.read_bytes() if content is None else content.encode()
        return {"path": path, "hash": "md5", "md5": hashlib.md5(known).hexdigest()}

    prepared = [entry(f"data/prepared/{kind}/{split}.arrow", f"{split} {data}") for split in ("train", "validation")]
    test = entry(f"data/prepared/{kind}/test.arrow", f"test {data}")
    bundle = {"path": f"bundles/{task}", "hash": "md5", "md5": _md5_of_folder(root / "bundles" / task)}
    judged = ("test", "candidates", "slices", *(["explanation"] if _explains(task) else []))
    verdict = [entry(f"reports/{task}/{name}.json") for name in judged]
    made: dict[str, Any] = {
        stage_names.fetch(task): {
            "params": {"params.yaml": {stage_names.fetch(task): {"source": "tiny"}}},
            "outs": [entry(f"data/raw/{kind}", "raw")],
        },
        stage_names.prepare(task): {
            "deps": [entry(f"data/raw/{kind}", "raw")],
            "params": {"params.yaml": {stage_names.prepare(task): {"seed": 0, "preprocessing": {"kind": kind}}}},
            "outs": [
                *prepared,
                test,
                entry(f"data/prepared/{kind}/gate.arrow"),
                entry(f"reports/{kind}/findings.json"),
            ],
        },
    }
    weights = [f"candidates/{task}-{architecture}/weights.safetensors" for architecture in architectures(task)]
    for architecture, path in zip(architectures(task), weights, strict=True):
        names = ("metrics.json", "curves.csv", "training.json")
        reports = [entry(f"reports/{task}/{architecture}/{name}") for name in names]
        section = ".".join(stage_names.training_section(task, architecture))
        made[stage_names.train(task, architecture)] = {
            "cmd": "python -m pipelines.train",
            "deps": [*prepared, entry("pipelines/train.py")],
            "params": {"params.yaml": {"train.trainer": {"seed": 0}, section: PARAMS}},
            "outs": [entry(path), *reports],
        }
    choice = [entry(f"reports/{task}/choice.json")] if stage_names.is_chosen(task) else []
    parity = entry(f"reports/{task}/parity.json")
    if stage_names.is_chosen(task):
        made[stage_names.choose(task)] = {"deps": [], "outs": choice}
    made[stage_names.export(task)] = {"deps": [*choice, *map(entry, weights)], "outs": [bundle, parity]}
    made[stage_names.evaluate(task)] = {"deps": [bundle, test], "outs": verdict}
    lock = root / "dvc.lock"
    known = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    others = [read for read in known.get(stage_names.BASELINES, {}).get("deps", []) if f"/{kind}/" not in read["path"]]
    predictions = sorted((root / "reports/baselines").glob("*.csv"))
    made[stage_names.BASELINES] = {
        "deps": [*others, prepared[0], test],
        "params": {"params.yaml": {stage_names.BASELINES: BASELINE_PARAMS}},
        "outs": [entry("reports/baselines.json"), *(entry(f"reports/baselines/{path.name}") for path in predictions)],
    }
    made = json.loads(json.dumps(made))  # no shared entries, which YAML would write as aliases
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": {**known, **made}}, sort_keys=False))


def _explains(task: Task) -> bool:
    return task != "text-stream"
