"""A folder as `dvc repro` leaves it, made of tiny bundles in milliseconds, for the tests of all that publishes."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import gate_splits
import tiny_bundles
import yaml
from PIL import Image

from convoy.core.tasks import Candidate, Entries, Task, parse

METRICS = {"accuracy": 0.9, "macro_f1": 0.89, "log_loss": 0.3, "n": 100}
BASELINES = {"image": "mlp", "text": "nb-svm"}
BASELINE_PARAMS = {
    "image": {"seed": 0, "networks": {"mlp": {"hidden": [8], "epochs": 3}, "logreg": {"epochs": 2}}},
    "text": {"seed": 0, "counting": {"longest": 2}, "nb-svm": {"smoothing": 1.0}},
}
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
DATA = {"fashion": "fashion", "reviews": "reviews", "reviews-stream": "reviews"}  # task -> data set
KINDS = {"fashion": "image", "reviews": "text"}
NETWORKS = {"fashion": ("cnn", "lstm"), "reviews": ("cnn", "lstm"), "reviews-stream": ("lstm",)}
CARDS = {
    "fashion": tiny_bundles.IMAGE_CARD,
    "reviews": tiny_bundles.TEXT_CARD,
    "reviews-stream": tiny_bundles.STREAM_CARD,
}
WRITERS = {
    "fashion": tiny_bundles.write_image_bundle,
    "reviews": tiny_bundles.write_text_bundle,
    "reviews-stream": tiny_bundles.write_stream_bundle,
}


def lay(
    root: Path,
    task: str = "fashion",
    validation: dict[str, float] | None = None,
    version: int = 1,
    data: int = 1,
    shift: float = 0.0,
    labels: tuple[str, ...] | None = None,
    **publish: Any,
) -> None:
    """Lay what the pipeline builds for `task`, one of the packaged three.

    Another `version` is another winner, other `data` another split; a model with a `shift` is worse on the gate split.
    `labels` take the place of the tiny bundle's own, as many as it has.
    The rest is for the section publish of release.yaml.
    """
    write_params(root, task)
    _write(root / "release.yaml", yaml.safe_dump({"publish": {**PUBLISH, **publish}}).encode())
    _write(root / "pipelines/train.py", b"# trains\n")
    entry = entries(root).task(task)
    _prepare(root, entry, data, labels)
    _reports(root / "reports", entry, {**METRICS, **(validation or {})}, version, data, labels or ("T-shirt/top",))
    for candidate in entries(root).of_task(task):
        folder = root / "candidates" / task / candidate.name
        _write(folder / "weights.safetensors", f"weights {version}".encode())
        _write(folder / "candidate.json", json.dumps({"candidate": candidate.name}).encode())
    winner = _winner(task)
    shutil.rmtree(root / "winner" / task, ignore_errors=True)
    shutil.copytree(root / "candidates" / task / winner, root / "winner" / task)
    about: dict[str, Any] = {
        "params": {**PARAMS, "seed": version},
        "architecture": NETWORKS[task][0],
        "candidate": winner,
        "data": {"train": f"{data:064}"},
    }
    card = CARDS[task].model_copy(update=about | ({"labels": labels} if labels else {}))
    WRITERS[task](root / "bundles" / task, card, shift)
    write_lock(root, task)


def entries(root: Path) -> Entries:
    """The entries of the params.yaml there."""
    return parse((root / "params.yaml").read_text())


def params_of(task: str) -> dict[str, Any]:
    """The entries of a task, its data set and its candidates, as params.yaml has them."""
    data, kind = DATA[task], KINDS[DATA[task]]
    about = {"data": data, "kind": kind}
    prepare = {"seed": 0, "preprocessing": {"kind": kind}, "limits": gate_splits.NO_LIMITS}
    data_set = {
        "kind": kind,
        "fetch": {"source": "tiny"},
        "prepare": prepare,
        "baselines": BASELINE_PARAMS[kind],
    }
    candidates = {
        f"{task}-{network}": {
            "task": task,
            **about,
            "input": None,
            **PARAMS,
            "network": {"name": network, **PARAMS["network"]},
        }
        for network in NETWORKS[task]
    }
    return {"data": {data: data_set}, "tasks": {task: about}, "candidates": candidates}


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` as a person without a configuration."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def _winner(task: str) -> str:
    return f"{task}-{NETWORKS[task][0]}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content).encode())


def write_params(root: Path, task: str) -> None:
    """Add the task to those that were laid there before."""
    path = root / "params.yaml"
    known = yaml.safe_load(path.read_text()) if path.exists() else {}
    added = params_of(task)
    params = {name: {**known.get(name, {}), **section} for name, section in added.items()}
    _write(path, yaml.safe_dump({**known, **params, "trainer": {"seed": 0}}, sort_keys=False).encode())


def _prepare(root: Path, task: Task, data: int, labels: tuple[str, ...] | None) -> None:
    folder = root / "data/prepared" / task.data
    for split in ("train", "validation", "test"):
        _write(folder / f"{split}.arrow", f"{split} {data}".encode())
    _write(folder / "gate.arrow", gate_splits.content(task.kind, labels=labels))
    _write_json(folder / "contract/preprocessing.json", {"kind": task.kind})
    reports = root / "reports/data" / task.data
    _write(reports / "findings.json", gate_splits.findings(task.kind))
    _write_json(reports / "data.json", {"train": 100})
    _write(reports / "data.html", b"<!doctype html>")
    _write(reports / "rejected.csv", b"name,ignored,code,message\n")
    baseline = BASELINES[task.kind]
    baselines = root / "reports/baselines" / task.data
    _write_json(baselines / "figures.json", {baseline: {"accuracy": 0.85, "n": 100}})
    _write(baselines / "predictions.csv", f"actual,{baseline}\n".encode())


def _reports(
    root: Path, task: Task, validation: dict[str, float], version: int, data: int, labels: tuple[str, ...]
) -> None:
    folder = root / task.name
    names = [f"{task.name}-{network}" for network in NETWORKS[task.name]]
    pictures = ["reliability", "slices"]
    for name in names:
        fingerprint = hashlib.sha256(f"{name} {version} {data}".encode()).hexdigest()
        training = {"fingerprint": fingerprint, "device": "cpu"}
        metrics = {"validation": validation, "best_epoch": 2, "parameters": 1234, "training": training}
        _write_json(folder / name / "metrics.json", metrics)
        rows = [f"{epoch},{1 / epoch},{0.5 / epoch},0.9,0.001,{epoch * 1.5}" for epoch in (1, 2, 3)]
        header = "epoch,train_loss,validation_loss,validation_accuracy,learning_rate,elapsed_s"
        _write(folder / name / "curves.csv", "\n".join([header, *rows, ""]).encode())
        pictures += [f"{name}-confusion", f"{name}-misclassified"]
    (folder / "pictures").mkdir(exist_ok=True)
    for picture in pictures:
        Image.new("L", (8, 8)).save(folder / "pictures" / f"{picture}.png")
    explained = {"n": 500, "share": 0.1, "difference": 0.3} if _explains(task.name) else None
    parity = {part: AGREEMENT for part in ("validation", "sizes", "batches")}
    if explained:
        parity["explanation"] = {**AGREEMENT, "mean_contribution_difference": 1e-7}
    contents: dict[str, Any] = {
        "choice": {"candidate": names[0], "candidates": {name: validation for name in names}},
        "parity": parity,
        "test": {
            **METRICS,
            "accuracy": 0.91,
            "labels": {label: {"f1": 0.8} for label in labels},
            "explanation": explained,
            "candidates": {name: {"accuracy": 0.91, "log_loss": 0.31, "n": 100} for name in names},
            "slices": {"class": {label: {"accuracy": 0.8, "n": n} for n, label in enumerate(labels, 10)}},
        },
    }
    for name, content in contents.items():
        _write_json(folder / f"{name}.json", content)
    _write(folder / "predictions.csv", b"actual,predicted\n")


def md5_of(path: Path) -> str:
    """DVC's hash of a file or a folder."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listed = [{"md5": md5_of(file), "relpath": name} for name, file in sorted(files.items())]
    return hashlib.md5(json.dumps(listed).encode()).hexdigest() + ".dir"


def write_lock(root: Path, task: str) -> None:
    """Write the entries that DVC would for the files as they are now, merged with those of the other tasks."""
    lock = root / "dvc.lock"
    known = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
    made = json.loads(json.dumps(_stages(root, task)))  # no shared entries, which YAML would write as aliases
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": {**known, **made}}, sort_keys=False))


def _stages(root: Path, name: str) -> dict[str, Any]:
    content = yaml.safe_load((root / "params.yaml").read_text())
    known = entries(root)
    task = known.task(name)
    data, prepared = known.data[task.data], f"data/prepared/{task.data}"
    reports, predictions = f"reports/{name}", f"reports/baselines/{task.data}/predictions.csv"

    def hashed(*paths: str) -> list[dict[str, str]]:
        return [{"path": path, "hash": "md5", "md5": md5_of(root / path)} for path in paths]

    def params(*keys: str) -> dict[str, Any]:
        values = {key: content for key in keys}
        for key in keys:
            for part in key.split("."):
                values[key] = values[key][part]
        return {"params.yaml": values}

    def trained(candidate: Candidate) -> dict[str, Any]:
        own = f"{reports}/{candidate.name}"
        splits = [f"{prepared}/{part}" for part in ("contract", "train.arrow", "validation.arrow")]
        return {
            "cmd": "python -m pipelines.train",
            "deps": hashed(*splits, "pipelines/train.py"),
            "params": params("trainer", candidate.key),
            "outs": hashed(f"candidates/{name}/{candidate.name}", f"{own}/metrics.json", f"{own}/curves.csv"),
        }

    raw = {"path": f"data/raw/{task.data}", "hash": "md5", "md5": hashlib.md5(b"raw").hexdigest() + ".dir"}
    found = [f"reports/data/{task.data}/{file}" for file in ("findings.json", "data.html", "rejected.csv", "data.json")]
    splits = [f"{prepared}/test.arrow", f"{prepared}/train.arrow"]
    figures = f"reports/baselines/{task.data}/figures.json"
    judged = [f"bundles/{name}", f"candidates/{name}", f"{prepared}/test.arrow", predictions, f"winner/{name}"]
    section = f"data.{task.data}"
    return {
        data.fetch: {"params": params(f"{section}.kind", f"{section}.fetch"), "outs": [raw]},
        data.prepare: {"deps": [raw], "params": params(f"{section}.prepare"), "outs": hashed(prepared, *found)},
        data.baselines: {
            "deps": hashed(*splits),
            "params": params(f"{section}.baselines"),
            "outs": hashed(predictions, figures),
        },
        **{candidate.train: trained(candidate) for candidate in known.of_task(name)},
        task.choose: {"deps": hashed(f"candidates/{name}"), "outs": hashed(f"winner/{name}", f"{reports}/choice.json")},
        task.export: {
            "deps": hashed(f"{prepared}/validation.arrow", f"winner/{name}"),
            "outs": hashed(f"bundles/{name}", f"{reports}/parity.json"),
        },
        task.evaluate: {
            "deps": hashed(*judged),
            "outs": hashed(f"{reports}/test.json", f"{reports}/pictures", f"{reports}/predictions.csv"),
        },
    }


def _explains(task: str) -> bool:
    return CARDS[task].explanation is not None
