"""A git repository with a DVC pipeline of the real one's stages, each of which copies what it makes; built."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import built_pipeline
import gate_splits
import yaml

from convoy.lineage import workspace

# A stage's outs stand ready in git; OTHERWISE makes a training give other weights each time.
MAKE = """
import os, shutil, sys
for path in sys.argv[1:]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    copy = shutil.copytree if os.path.isdir("ready/" + path) else shutil.copyfile
    copy("ready/" + path, path)
    if path.endswith("weights.safetensors") and os.environ.get("OTHERWISE"):
        open(path, "ab").write(os.urandom(8))
"""
SPLITS = [f"data/prepared/image/{name}.arrow" for name in ("train", "validation", "test")]
GATE, FINDINGS = "data/prepared/image/gate.arrow", "reports/image/findings.json"  # read by the gates
PARAMS = {
    "fetch_images": {"source": "tiny"},
    "prepare_images": {"seed": 0, "tolerance": 1e-05, "limits": gate_splits.NO_LIMITS},
    "train": {"trainer": {"seed": 0}, "image": {name: built_pipeline.PARAMS for name in ("cnn", "lstm")}},
    "baselines": built_pipeline.BASELINE_PARAMS,
}
IGNORED = [
    "data",
    "candidates",
    "bundles",
    "reports/baselines",
    "deployed",
    "mlflow-store",
    "mlruns",
    ".run",
    "__pycache__",
]


def lay(root: Path) -> None:
    """Lay, commit and build; dvc.lock and the reports are not committed, and an edit of the code is not either."""
    built_pipeline.lay(root / "ready")
    for path in ("ready/dvc.lock", "ready/params.yaml", "ready/release.yaml"):
        (root / path).unlink()
    shutil.rmtree(root / "ready/pipelines")
    for path in ("data/raw/image/items.arrow", *SPLITS):
        (root / "ready" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "ready" / path).write_text(f"the content of {path}")
    (root / "pipelines").mkdir()
    (root / "pipelines/train.py").write_text("# trains\n")
    (root / "make.py").write_text(MAKE)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    (root / "release.yaml").write_text(yaml.safe_dump({"publish": built_pipeline.PUBLISH}))
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": _stages()}, sort_keys=False))
    (root / ".gitignore").write_text("".join(f"/{name}\n" for name in IGNORED))
    built_pipeline.git(root, "init", "--quiet")
    dvc(root, "init", "--quiet")
    built_pipeline.git(root, "add", ".")
    built_pipeline.git(root, "commit", "--quiet", "--message", "The sources")
    (root / "pipelines/train.py").write_text("# trains, with an edit\n")
    dvc(root, "repro", "--quiet")


def dvc(root: Path, *words: str) -> str:
    """Run DVC there, and give what it says."""
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=root, env=workspace.environment(root), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _stages() -> dict[str, Any]:
    candidate, reports = "${item.task}-${item.architecture}", "reports/${item.task}"
    trained = [f"{reports}/${{item.architecture}}/{name}" for name in ("metrics.json", "training.json", "curves.csv")]
    weights = [f"candidates/${{item.task}}-{name}/weights.safetensors" for name in ("cnn", "lstm")]
    judged = [f"{reports}/{name}.json" for name in ("test", "candidates", "slices")]
    task = {"task": ["image"]}
    return {
        "fetch_images": _stage([], ["data/raw/image"], params=["fetch_images"]),
        "prepare_images": _stage(["data/raw/image"], [*SPLITS, GATE, FINDINGS], params=["prepare_images"]),
        "train": _stage(
            [*SPLITS[:2], "pipelines/train.py"],
            [f"candidates/{candidate}/weights.safetensors"],
            trained,
            params=["train.trainer", "train.${item.task}.${item.architecture}"],
            matrix={**task, "architecture": ["cnn", "lstm"]},
        ),
        "baselines": _stage(
            [SPLITS[0], SPLITS[2]], ["reports/baselines/image.csv"], ["reports/baselines.json"], params=["baselines"]
        ),
        "choose": _stage([f"{reports}/cnn/metrics.json"], [], [f"{reports}/choice.json"], matrix=task),
        "export": _stage(
            [*weights, f"{reports}/choice.json"], ["bundles/image"], [f"{reports}/parity.json"], matrix=task
        ),
        "evaluate": _stage(["bundles/image", SPLITS[2]], [], judged, matrix=task),
    }


def _stage(deps: list[str], outs: list[str], kept: list[str] | None = None, **more: Any) -> dict[str, Any]:
    uncached = [{path: {"cache": False}} for path in kept or []]
    command = " ".join(["python make.py", *outs, *(kept or [])])
    return {"cmd": command, "deps": [*deps, "make.py"], "outs": [*outs, *uncached], **more}
