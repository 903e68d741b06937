"""The whole laboratory on few examples in a folder of its own: minutes, everything runs, nothing is learnt well."""

import importlib
import subprocess
import sys
from pathlib import Path

import yaml

from convoy.core.params import ParamsInvalid, read_section
from convoy.core.process import Say
from convoy.lineage import workspace
from lab.layout import PARAMS
from lab.learning.items import DataParams

OVERRIDES = Path("lab/smoke.yaml")
STAGES = Path("lab/dvc.yaml")


def run(folder: Path, say: Say) -> int:
    """Lay `folder` with demo.yaml and lab/smoke.yaml, prepare, measure, publish there; the exit code."""
    try:
        workspace.create(folder, Path("demo.yaml"))
        (folder / PARAMS).write_text(workspace.merge_files(PARAMS, OVERRIDES), encoding="utf-8")
        data = read_section(DataParams, "data", path=PARAMS)
    except (workspace.WorkspaceRefused, ParamsInvalid) as error:
        say(str(error))
        return 1
    say(f"few examples, short trainings, in {folder}: nothing outside it changes, and no figure means anything")
    prepare = [f"prepare@{each.prepared}" for each in (data.image, data.text)]
    for words in (["dvc", "repro", *prepare], ["lab", "measure"], ["lab", "publish"]):
        status = subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, env=workspace.environment(folder), check=False
        ).returncode
        if status:
            return status
    say(f"{folder / 'reports/compare/index.html'} has the page")
    return 0


def measure() -> None:
    """Every stage of lab/dvc.yaml, in its order and in this process, and without DVC.

    In a process each, the 27 of them would import torch for longer than they compute here: four minutes of seven.
    """
    for stage in yaml.safe_load(STAGES.read_text(encoding="utf-8"))["stages"].values():
        module = stage["cmd"].split()[3]  # exec python -m lab.stages.NAME
        arguments = [[each] for each in next(iter(stage["matrix"].values()))] if "matrix" in stage else [[]]
        for words in arguments:
            importlib.import_module(module).main(*words)
