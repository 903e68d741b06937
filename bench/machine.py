"""Where and from what a benchmark ran: machine, versions, revision; without them its figures say nothing."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from convoy.core.process import usable_cores
from convoy.tracking.provenance import read_git_state

_PACKAGES = ("torch", "pytorch-lightning", "numpy", "optuna", "onnxruntime", "bentoml", "uvicorn")


def facts() -> dict[str, Any]:
    """What every report begins with. `load` is the machine's before the first round: a quiet one is near 0."""
    git = read_git_state()
    return {
        "revision": git.revision if git else None,
        "dirty": git.dirty if git else None,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cpu": _cpu(),
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "load": round(os.getloadavg()[0], 2),
            "system": platform.platform(terse=True),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def _cpu() -> str:
    """Linux does not tell platform.processor() the model."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
