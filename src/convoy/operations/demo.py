"""The demo: the whole pipeline on few examples in a folder of its own, its data sets beside each other; then `up`."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from convoy.core import tasks
from convoy.core.children import Child, end_all
from convoy.core.params import ParamsInvalid
from convoy.core.process import Say, usable_cores
from convoy.lineage import workspace
from convoy.operations import ports

PARAMS = Path("demo.yaml")
END_WITHIN_S = 10  # dvc ends its stage first


def run(folder: Path, port: int, mlflow_port: int, say: Say) -> int:
    """Create a workspace in `folder` with demo.yaml, build, publish and serve there; returns only on a failure."""
    try:
        ports.check({"PORT": port, "MLFLOW_PORT": mlflow_port})
        workspace.create(folder, PARAMS)
    except (ports.PortTaken, workspace.WorkspaceRefused, ParamsInvalid) as error:
        say(str(error))
        return 1
    say(f"few examples and epochs, in {folder}: nothing outside it changes")
    environment = workspace.environment(folder)
    os.chdir(folder)
    if status := _call(environment, "convoy", "verify", "--mend") or build(environment, say):
        return status
    if status := _call(environment, "convoy", "publish"):
        return status
    up = ["-m", "convoy", "up", "--port", str(port), "--mlflow-port", str(mlflow_port)]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *up], environment)


def _call(environment: dict[str, str], *words: str) -> int:
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", *words], env=environment, check=False).returncode


def build(environment: dict[str, str], say: Say) -> int:
    """One `dvc repro` a data set, all at the same time: so few examples do not keep two cores busy.

    DVC allows this for parts that share no stage. Gives 0, or the status of one that failed: then the others are ended.
    """
    stages: dict[str, list[str]] = {}
    for task in tasks.read().tasks.values():
        stages.setdefault(task.data, []).append(task.evaluate)
    threads = max(1, usable_cores() // len(stages))
    # Nobody looks at MLflow before it is up, so training need not show it how it goes.
    environment = {**environment, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "CONVOY_FOLLOW": "0"}
    running = {name: _start_repro(environment, targets) for name, targets in stages.items()}

    def follow(name: str) -> int:
        output = running[name].stdout
        assert output is not None
        # As text, so that the \r of a progress bar ends a line too. ValueError: closed, since the other has failed.
        with suppress(ValueError), io.TextIOWrapper(output, errors="replace") as lines:
            for line in lines:
                if line.strip():
                    say(f"{name:<8}| {line.rstrip()}")
        if status := running[name].wait():
            end_all(running.values(), END_WITHIN_S)
        return status

    with ThreadPoolExecutor(len(running)) as pool:
        try:
            return max(pool.map(follow, running), key=abs)
        finally:
            end_all(running.values(), END_WITHIN_S)


def _start_repro(environment: dict[str, str], targets: list[str]) -> Child:
    words = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *targets]
    return Child(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
