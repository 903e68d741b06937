"""A git repository with a DVC pipeline of the real one's stages, each of which copies what it makes; built."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import built_pipeline
import yaml

from convoy.lineage import workspace

# A stage's outs stand ready in git; OTHERWISE makes a training give other weights each time.
MAKE = """
import os, shutil, sys
for path in sys.argv[1:]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    copy = shutil.copytree if os.path.isdir("ready/" + path) else shutil.copyfile
    copy("ready/" + path, path)
    if path.startswith("candidates/") and os.environ.get("OTHERWISE"):
        open(path + "/weights.safetensors", "ab").write(os.urandom(8))
"""
CANDIDATES = [f"candidates/fashion/fashion-{network}" for network in built_pipeline.NETWORKS["fashion"]]
PARAMS = {**built_pipeline.params_of("fashion"), "trainer": {"seed": 0}}
PARAMS["data"]["fashion"]["prepare"] |= {"tolerance": 1e-05}
IGNORED = [
    "data",
    "candidates",
    "winner",
    "bundles",
    "reports/baselines/*/predictions.csv",
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
    (root / "ready/data/raw/fashion").mkdir(parents=True)
    (root / "ready/data/raw/fashion/items.arrow").write_text("the raw items")
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
    prepared, about_data = "data/prepared/${key}", "reports/data/${key}"
    found = [f"{about_data}/{name}" for name in ("data.html", "findings.json", "rejected.csv")]
    of_candidate = "reports/${item.task}/${key}"
    test, own = "data/prepared/${item.data}/test.arrow", "reports/${key}"
    predictions = "reports/baselines/${item.data}/predictions.csv"
    learnt = ["data/prepared/${item.data}/" + name for name in ("contract", "train.arrow", "validation.arrow")]
    return {
        "fetch": _each("data", [], ["data/raw/${key}"], [], ["data.${key}.kind", "data.${key}.fetch"]),
        "prepare": _each(
            "data", ["data/raw/${key}"], [prepared, *found], [f"{about_data}/data.json"], ["data.${key}.prepare"]
        ),
        "baselines": _each(
            "data",
            [f"{prepared}/test.arrow", f"{prepared}/train.arrow"],
            ["reports/baselines/${key}/predictions.csv"],
            ["reports/baselines/${key}/figures.json"],
            ["data.${key}.baselines"],
        ),
        "train": _each(
            "candidates",
            [*learnt, "pipelines/train.py"],
            ["candidates/${item.task}/${key}"],
            [f"{of_candidate}/metrics.json", f"{of_candidate}/curves.csv"],
            ["trainer", "candidates.${key}"],
        ),
        "choose": _each("tasks", ["candidates/${key}"], ["winner/${key}"], [f"{own}/choice.json"]),
        "export": _each("tasks", ["winner/${key}"], ["bundles/${key}"], [f"{own}/parity.json"]),
        "evaluate": _each(
            "tasks",
            ["bundles/${key}", "candidates/${key}", test, predictions, "winner/${key}"],
            [f"{own}/pictures", f"{own}/predictions.csv"],
            [f"{own}/test.json"],
        ),
    }


def _each(
    section: str, deps: list[str], outs: list[str], kept: list[str], params: list[str] | None = None
) -> dict[str, Any]:
    """A stage for each entry of a section of params.yaml; what is `kept` is in git and not in DVC's cache."""
    uncached = [{path: {"cache": False}} for path in kept]
    command = " ".join(["python make.py", *outs, *kept])
    stage = {"cmd": command, "deps": [*deps, "make.py"], "outs": [*outs, *uncached], "params": params or []}
    return {"foreach": f"${{{section}}}", "do": stage}
