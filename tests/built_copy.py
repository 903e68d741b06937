"""A copy of the working tree in which the whole pipeline runs for real, with the params of `make demo`."""

import subprocess
import sys
from pathlib import Path

from convoy.running import workspace

BUILD_S = 900


def command(folder: Path, *words: str, timeout_s: float = 120) -> str:
    """Run a Python module in the copy, with the copy's code, and give its output."""
    environment = {name: value for name, value in workspace.environment(folder).items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def build(folder: Path) -> Path:
    """Raw data to a published bundle per task, as a user would do it."""
    workspace.lay(folder, Path("demo.yaml"))
    command(folder, "dvc", "repro", timeout_s=BUILD_S)
    command(folder, "convoy", "publish", timeout_s=300)
    return folder
