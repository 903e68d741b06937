"""Everything that a training's weights depend on -> one sha256; on a CPU equal ones give equal weights, bitwise."""

import hashlib
import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from convoy.core.digests import sha256_of


def surroundings(accelerator: str) -> dict[str, Any]:
    """What of the machine and the libraries changes weights: versions, the kind of device, the number of threads."""
    return {
        "torch": torch.__version__,
        "lightning": version("pytorch-lightning"),
        "device": _device(accelerator),
        "threads": torch.get_num_threads(),
    }


def fingerprint(params: dict[str, Any], data: Iterable[Path], surroundings: dict[str, Any]) -> str:
    """sha256 (hex) over params, the content of the data files, all code of the pipeline loaded by now, surroundings."""
    content = {
        "params": params,
        "data": {str(path): sha256_of(path) for path in data},
        "code": {name: sha256_of(path) for name, path in _loaded_code()},
        **surroundings,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _loaded_code() -> list[tuple[str, Path]]:
    """Name and file of each module of convoy and pipelines, the one that `python -m` runs included."""
    specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
    return [
        (spec.name, Path(spec.origin))
        for spec in specs
        if spec is not None and spec.origin and spec.name.split(".")[0] in ("convoy", "pipelines")
    ]


def _device(accelerator: str) -> str:
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if accelerator in ("auto", "mps") and torch.backends.mps.is_available() else "cpu"
